"""What the comparison finds, and that an export which is wrong does not pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.modules import Sizes, state_tensors
from nanocap.convert.parity import EagerEngine, check_batches, check_exact, check_student, compare
from nanocap.convert.probe import rollout
from nanocap.runtime.engines.state import State
from nanocap.runtime.search import Options, Searcher


def test_a_student_equals_itself(tiny: Any) -> None:
    eager = tiny.eager()
    parity = compare(eager, eager, tiny.probe(tiny.pixels(5)))
    assert parity.max_logit_difference == 0
    assert parity.tokens_equal == parity.captions_equal == 1
    assert parity.photos == 5
    assert parity.divergences == ()
    check_exact(parity, "itself")


@pytest.mark.parametrize("part", ["decoder.layers.1.cross_out.weight", "encoder.norm.weight"])
def test_one_changed_tensor_is_found(tiny: Any, part: str) -> None:
    changed = tiny.student()
    with torch.no_grad():
        changed.get_parameter(part).mul_(1.02)
    probe = tiny.probe(tiny.pixels(2))
    parity = compare(tiny.eager(), tiny.eager(changed), probe)
    assert parity.max_logit_difference > 1e-3
    with pytest.raises(ConversionError, match="differs from eager: logits by") as caught:
        check_exact(parity, "onnx fp32")
    assert "\n" not in str(caught.value)


def test_other_weights_give_other_captions(tiny: Any) -> None:
    other = tiny.eager(tiny.student(seed=1))
    parity = compare(tiny.eager(), other, tiny.probe(tiny.pixels(4)))
    assert parity.tokens_equal < 1
    assert parity.captions_equal == 0
    assert [one.photo for one in parity.divergences] == [0, 1, 2, 3]
    assert all(one.place >= 1 and one.expected != one.found for one in parity.divergences)


def test_values_that_are_not_finite_are_refused(tiny: Any) -> None:
    broken = tiny.student()
    with torch.no_grad():
        broken.decoder.norm.weight.fill_(torch.nan)
    with pytest.raises(ConversionError, match="not finite"):
        compare(tiny.eager(), tiny.eager(broken), tiny.probe(tiny.pixels(1)))


class MixesPhotos(EagerEngine):
    """Scales by the largest value of the batch, as dynamic quantization does."""

    def begin(self, *given: Any) -> State:
        state = super().begin(*given)
        scale = np.abs(state["cross_keys"]).max() / 15
        return {**state, "cross_keys": np.rint(state["cross_keys"] / scale) * scale}


def test_photos_that_change_each_other_are_found(tiny: Any) -> None:
    probe = tiny.probe(tiny.pixels(3))
    check_batches(tiny.eager(), probe, "eager")
    with pytest.raises(ConversionError, match="a photo in a batch differs"):
        check_batches(MixesPhotos(tiny.student(), tiny.search()), probe, "coarse")


class Leans(EagerEngine):
    """Adds up alone in another order than in a batch: the last digits of a rounded value differ."""

    def begin(self, pixels: np.ndarray, *given: Any) -> State:
        state = super().begin(pixels, *given)
        keys = state["cross_keys"]
        lean = np.abs(keys).max() * 0.02 if len(pixels) == 1 else 0
        return {**state, "cross_keys": keys + np.float32(lean)}


def test_what_rounding_moves_is_a_share_of_the_largest_value(tiny: Any) -> None:
    probe = tiny.probe(tiny.pixels(3))
    check_batches(Leans(tiny.student(), tiny.search()), probe, "int8", 0.2)
    with pytest.raises(ConversionError, match=r"same photo alone .* longer or on more photos$"):
        check_batches(Leans(tiny.student(), tiny.search()), probe, "fp32")
    with pytest.raises(ConversionError, match=r"more photos, or take --precision fp32$"):
        check_batches(Leans(tiny.student(), tiny.search()), probe, "int8", 0.002)


def test_a_student_that_says_nothing_is_told_apart_before_it_is_exported(tiny: Any) -> None:
    student, search, probe = tiny.student(), tiny.search(), tiny.probe(tiny.pixels(3))
    check_student(student, search, probe, "a.safetensors")
    with torch.no_grad():
        student.decoder.norm.weight.zero_()
        student.decoder.norm.bias.fill_(1)
        student.decoder.embedding.weight[search.end] = 100
    with pytest.raises(ConversionError, match=r"^a.safetensors: says nothing of any of 3 photos:"):
        check_student(student, search, probe, "a.safetensors")


def test_the_rollout_says_what_the_runtime_says(tiny: Any) -> None:
    """The greedy captions that parity walks along are those of the runtime's own loop."""
    search = tiny.checkpoint().search(repeats=True)  # takes what is likeliest
    engine, probe = EagerEngine(tiny.student(), search), tiny.probe(tiny.pixels(4))
    steps = list(rollout(engine, probe, probe.pixels))
    found = np.stack([probe.barred(s.logits).argmax(1) for s in steps if s.counts.any()], axis=1)
    tensors = state_tensors(Sizes.of(tiny.dimensions), search)
    searcher = Searcher(engine, tensors, search.end, search.pad, tiny.dimensions.max_tokens)
    said = searcher.search(probe.pixels, Options(1, 1.0, probe.quality, probe.length))
    for row, answer in zip(found, said, strict=True):
        (best,) = answer.hypotheses
        assert tuple(row[: len(best.ids)]) == best.ids
