"""A sliced student says what the masked one says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nanocap.distill.pruning.axes import find_axes
from nanocap.distill.pruning.masks import fold
from nanocap.distill.pruning.slicing import slice_student
from nanocap.student import Dimensions, Student
from nanocap.student.student import count_parameters

#: Pooled: which tokens merge is a decision, and of keys with two channels left the cosines may be
#: equal but for rounding. Merging has a test of its own.
SMALL = Dimensions(
    reducer="pool",
    image_size=64,
    width=32,
    heads=2,
    encoder_blocks=2,
    decoder_layers=2,
    mlp_ratio=2,
    vocabulary=72,
    max_tokens=12,
    keep=(8, 4),
)
CHANNELS = [axis.channels for axis in find_axes(SMALL)]


@pytest.fixture(scope="module")
def student() -> Student:
    """One in which every weight and bias matters."""
    torch.manual_seed(1)
    student = Student(SMALL)
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.normal_(module.bias, std=0.3)
        nn.init.normal_(student.decoder.embedding.weight, std=0.5)
    return student.eval()


def random_masks(counts: Sequence[int], seed: int) -> dict[str, Tensor]:
    """So many channels of each axis, others in every head."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for axis, count in zip(find_axes(SMALL), counts, strict=True):
        for site in axis.sites:
            order = torch.rand(site.heads, axis.channels, generator=generator).argsort(1).argsort(1)
            kept[site.masked] = (order < count).flatten()
    return kept


def logits(student: Student) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, 64, 64, generator=generator)
    tokens = torch.randint(0, 72, (2, 3, 10), generator=generator)
    with torch.no_grad():
        return student(pixels, tokens)


def check(student: Student, counts: Sequence[int], seed: int) -> Student:
    kept, state = random_masks(counts, seed), student.state_dict()
    sites = [site for axis in find_axes(SMALL) for site in axis.sites]
    masked = Student(student.dimensions).eval()
    masked.load_state_dict(fold(sites, {name: one.float() for name, one in kept.items()}, state))
    sliced = slice_student(student.dimensions, state, kept)
    torch.testing.assert_close(logits(sliced), logits(masked), rtol=0, atol=1e-5)
    return sliced


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*(st.integers(1, channels) for channels in CHANNELS)),
    st.integers(0, 10_000),
)
def test_sliced_equals_masked(student: Student, counts: tuple[int, ...], seed: int) -> None:
    check(student, counts, seed)


@pytest.mark.parametrize("seed", range(4))
def test_merging_looks_at_the_keys_that_are_left(student: Student, seed: int) -> None:
    merging = Student(replace(SMALL, reducer="merge")).eval()
    merging.load_state_dict(student.state_dict())
    check(merging, [channels // 2 for channels in CHANNELS], seed)


@pytest.mark.parametrize("axis", range(len(CHANNELS)))
def test_an_axis_that_loses_all_but_one_unit(student: Student, axis: int) -> None:
    counts = [1 if index == axis else most for index, most in enumerate(CHANNELS)]
    sliced = check(student, counts, seed=axis)
    lost = find_axes(SMALL)[axis].cost * (CHANNELS[axis] - 1)
    assert count_parameters(student) - count_parameters(sliced) == lost


def test_the_smallest_of_all(student: Student) -> None:
    sliced = check(student, [1] * len(CHANNELS), seed=0)
    pruned = sliced.dimensions.pruned
    assert pruned is not None
    assert (pruned.decoder_attention, pruned.cross_attention) == (2, 2)  # one channel of two heads
    assert pruned.encoder_mlp == pruned.decoder_mlp == (1, 1)


def test_what_keeps_everything_is_the_student_itself(student: Student) -> None:
    sliced = slice_student(SMALL, student.state_dict(), random_masks(CHANNELS, 0))
    assert sliced.dimensions == SMALL
    for name, tensor in student.state_dict().items():
        assert torch.equal(sliced.state_dict()[name], tensor)


def test_a_pruned_student_is_sliced_again(student: Student) -> None:
    half = [channels // 2 for channels in CHANNELS]
    once = check(student, half, seed=3)
    axes = find_axes(once.dimensions)
    assert [axis.channels for axis in axes] == half
    kept = {
        site.masked: torch.arange(site.heads * axis.channels) % axis.channels < 3
        for axis in axes
        for site in axis.sites
    }
    twice = slice_student(once.dimensions, once.state_dict(), kept)
    sites = [site for axis in axes for site in axis.sites]
    masked = Student(once.dimensions).eval()
    masked.load_state_dict(
        fold(sites, {name: one.float() for name, one in kept.items()}, once.state_dict())
    )
    torch.testing.assert_close(logits(twice), logits(masked), rtol=0, atol=1e-5)


def test_single_steps_with_a_cache_of_the_pruned_width(student: Student) -> None:
    """As the runtime does: what the cache gives step by step is what whole captions give."""
    sliced = check(student, [max(1, channels // 3) for channels in CHANNELS], seed=5)
    widths = sliced.dimensions.widths
    with torch.no_grad():
        memory = sliced.decoder.cross(sliced.encoder(torch.randn(2, 3, 64, 64)))
        assert memory.keys.shape == (2, 2, 4, widths.cross_attention)
        tokens = torch.randint(0, 72, (2, 3, 10))
        whole = sliced.decoder(tokens, memory)
        cache = [torch.zeros(2, 6, 12, widths.decoder_attention) for _ in range(2)]
        for position in range(10):
            step, _, *cache = sliced.decoder.step(
                tokens[:, :, position], torch.tensor([position]), memory, *cache
            )
            torch.testing.assert_close(step, whole[:, :, position], rtol=1e-4, atol=1e-5)
