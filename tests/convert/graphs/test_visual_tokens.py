"""Encoders of several budgets over one decoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nanocap import Captioner
from nanocap.bundle import Bundle
from nanocap.convert.build import build_bundle
from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.visual_tokens import schedule, with_tokens
from nanocap.convert.probe import forced
from nanocap.runtime.engines import load_engine
from nanocap.student import Dimensions, Student

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Path:
    """fp32 and dynamic int8 at 4 tokens, as trained, and at 16."""
    out = tmp_path_factory.mktemp("several") / "tiny"
    precisions = ["int8-dynamic", "fp32"]
    return build_bundle(tiny.checkpoint(), out, precisions=precisions, tokens=[4, 16])


def test_an_encoder_each_over_the_same_decoder(several: Path) -> None:
    manifest = Bundle(several).manifest
    names = [(artifact.name, artifact.visual_tokens) for artifact in manifest.artifacts]
    assert names == [
        (f"onnx-{precision}-{tokens}", tokens)
        for precision in ("int8-dynamic", "fp32")
        for tokens in (4, 16)
    ]
    steps = {artifact.files["step"] for artifact in manifest.artifacts}
    assert steps == {"onnx-int8-dynamic-4/step.onnx", "onnx-fp32-4/step.onnx"}
    assert len({artifact.files["begin"] for artifact in manifest.artifacts}) == 4
    assert len(list(several.rglob("*.onnx"))) == 6
    assert Bundle(several).unlisted() == []


def test_only_budgets_that_were_not_trained_say_so(several: Path) -> None:
    for artifact in Bundle(several).manifest.artifacts:
        trained = artifact.measured.get("trained_tokens")
        assert trained == (None if artifact.visual_tokens == 4 else 4)
    assert "| trained_tokens | 4 |" in (several / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("tokens", [16, 4])
def test_each_computes_what_the_student_computes(several: Path, tiny: Any, tokens: int) -> None:
    opened = Bundle(several)
    (artifact,) = (a for a in opened.manifest.artifacts if a.name == f"onnx-fp32-{tokens}")
    engine = load_engine(artifact, opened.load(artifact), 1)
    eager = tiny.eager(with_tokens(tiny.student(), tokens))
    ours, theirs = (tiny.begin(each, tiny.pixels(2), beams=3) for each in (engine, eager))
    assert ours["cross_keys"].shape == (2, 2, tokens, 32)
    np.testing.assert_allclose(ours["cross_keys"], theirs["cross_keys"], atol=1e-4)
    ids = np.array([[3, 9, 20], [3, 30, 40]])
    ours, theirs = forced(engine, ours, ids), forced(eager, theirs, ids)
    np.testing.assert_allclose(ours["logits"], theirs["logits"], atol=1e-4)


def test_the_runtime_picks_by_tokens(several: Path, tiny: Any) -> None:
    pictures = list(tiny.pixels(6))
    said = {t: [c.text for c in Captioner(several, tokens=t)(pictures)] for t in (16, 4)}
    assert Captioner(several).artifact.name == "onnx-int8-dynamic-4"
    assert said[16] != said[4]
    assert Captioner(several, deadline_ms=1e9).artifact.visual_tokens == 16


def test_the_schedule_reduces_as_trained_as_far_as_it_goes() -> None:
    dimensions = Dimensions()  # 196 tokens, then 98, then 49
    assert schedule(dimensions, 98) == (98, 98)
    assert schedule(dimensions, 196) == (196, 196)
    assert schedule(dimensions, 60) == (98, 60)
    assert schedule(replace(dimensions, keep=(98, 98)), 49) == (98, 49)


def test_another_budget_has_the_same_weights(tiny: Any) -> None:
    student = tiny.student()
    assert with_tokens(student, 4) is student
    other = with_tokens(student, 8)
    assert other.dimensions.keep == (8, 8)
    assert not other.training
    for ours, theirs in zip(other.parameters(), student.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_budgets_that_cannot_be_are_refused(tmp_path: Path, tiny: Any) -> None:
    with pytest.raises(ConversionError, match="17 visual tokens: this student has from 1 to 16"):
        with_tokens(tiny.student(), 17)
    with pytest.raises(ConversionError, match="no encoder blocks, so it always has 16"):
        with_tokens(Student(replace(tiny.dimensions, encoder_blocks=0, keep=())), 4)
    with pytest.raises(ConversionError, match="merge keeps at least half of 8 tokens, not 3"):
        build_bundle(tiny.checkpoint(), tmp_path / "out", precisions=["fp32"], tokens=[3])
    assert not (tmp_path / "out").exists()
