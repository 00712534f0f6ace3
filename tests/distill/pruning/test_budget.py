"""One budget over all axes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nanocap.distill.pruning.axes import ATTENTION, MLP, Axis, Site, find_axes, widths_of
from nanocap.distill.pruning.budget import check_keep, choose, keep_best, prunable
from nanocap.distill.pruning.slicing import slice_student
from nanocap.errors import NanocapError
from nanocap.student import PRESETS, Dimensions, Student
from nanocap.student.student import count_parameters

SMALL = Dimensions(image_size=64, width=32, heads=2, vocabulary=72, max_tokens=12, keep=(8, 4))
AXES = find_axes(SMALL)


def importance(of: Callable[[Site, int], Tensor], axes: list[Axis] = AXES) -> dict[str, Tensor]:
    """For each site what `of` gives for it and its number of channels."""
    return {
        site.masked: of(site, site.heads * axis.channels) for axis in axes for site in axis.sites
    }


def drawn(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return importance(lambda site, channels: torch.rand(channels, generator=generator))


def left(counts: list[int]) -> float:
    """Share of the parameters that is kept."""
    kept = sum(axis.cost * count for axis, count in zip(AXES, counts, strict=True))
    return kept / prunable(AXES)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.floats(0.08, 1.0))
def test_the_budget_is_met_and_no_unit_more_goes(seed: int, keep: float) -> None:
    counts = choose(AXES, drawn(seed), keep)
    assert left(counts) <= keep + 1e-9
    assert left(counts) > keep - max(axis.cost for axis in AXES) / prunable(AXES)
    assert all(1 <= count <= axis.channels for count, axis in zip(counts, AXES, strict=True))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.2, 0.9))
def test_a_smaller_budget_takes_more_of_the_same(seed: int, keep: float) -> None:
    scores = drawn(seed)
    more, less = (choose(AXES, scores, share) for share in (keep, keep - 0.1))
    assert all(a >= b for a, b in zip(more, less, strict=True))
    wide, narrow = keep_best(AXES, scores, more), keep_best(AXES, scores, less)
    for name in wide:
        assert bool((narrow[name] <= wide[name]).all())


@pytest.mark.parametrize("name", PRESETS)
def test_prunable_is_what_attentions_and_mlps_hold(name: str) -> None:
    student = Student(PRESETS[name])
    named = student.named_parameters()
    inner = ("query", "key", "value", "out", "up", "down")
    found = sum(p.numel() for n, p in named if n.split(".")[-2].removeprefix("cross_") in inner)
    outer = sum(
        p.numel()
        for n, p in student.named_parameters()
        if n.endswith(("out.bias", "mlp.down.bias"))  # of the tokens' width, which stays
    )
    assert prunable(find_axes(student.dimensions)) == found - outer


def test_everything_stays_of_a_budget_of_one() -> None:
    assert choose(AXES, drawn(0), 1.0) == [axis.channels for axis in AXES]


def test_what_matters_least_goes_first() -> None:
    """Of MLPs that differ in importance by place, the least important ones lose most."""

    def by_place(site: Site, channels: int) -> Tensor:
        if not site.maker.endswith("mlp.up"):
            return torch.linspace(1, 2, channels)
        depth = 1.0 if site.maker.startswith("encoder") else 0.2
        return depth + torch.linspace(0, 0.1, channels)

    counts = choose(AXES, importance(by_place), 0.6)
    mlps = {
        axis.sites[0].maker: count / axis.channels
        for axis, count in zip(AXES, counts, strict=True)
        if axis.kind == MLP
    }
    decoder = [share for name, share in mlps.items() if name.startswith("decoder")]
    encoder = [share for name, share in mlps.items() if name.startswith("encoder")]
    assert max(decoder) < 0.5
    assert min(encoder) == 1.0


@pytest.mark.parametrize("kind", [ATTENTION, MLP])
def test_the_scale_of_a_kind_decides_nothing(kind: str) -> None:
    scores = drawn(4)
    names = {site.masked for axis in AXES if axis.kind == kind for site in axis.sites}
    scaled = {n: s * 1000 if n in names else s for n, s in scores.items()}
    assert choose(AXES, scaled, 0.5) == choose(AXES, scores, 0.5)


def test_each_head_keeps_its_own_best() -> None:
    scores = drawn(7)
    counts = [3] * len(AXES)
    kept = keep_best(AXES, scores, counts)
    for axis in AXES:
        for site in axis.sites:
            for score, stays in zip(
                scores[site.masked].reshape(site.heads, -1),
                kept[site.masked].reshape(site.heads, -1),
                strict=True,
            ):
                assert int(stays.sum()) == 3
                assert score[stays].min() > score[~stays].max()


def test_of_equal_channels_the_first_stay() -> None:
    equal = importance(lambda site, channels: torch.zeros(channels))
    kept = keep_best(AXES, equal, [2] * len(AXES))
    for axis in AXES:
        for site in axis.sites:
            first = torch.arange(axis.channels) < 2
            assert torch.equal(kept[site.masked], first.repeat(site.heads))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 1.0))
def test_the_widths_are_those_of_the_slice(seed: int, keep: float) -> None:
    student, scores = Student(SMALL), drawn(seed)
    counts = choose(AXES, scores, keep)
    sliced = slice_student(SMALL, student.state_dict(), keep_best(AXES, scores, counts))
    assert sliced.dimensions.widths == widths_of(SMALL, counts)
    gone = count_parameters(student) - count_parameters(sliced)
    assert gone == round((1 - left(counts)) * prunable(AXES))
    assert Dimensions.from_dict(sliced.dimensions.to_dict()) == sliced.dimensions


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (0.0, "keep 0 must be a share above 0 and at most 1"),
        (-0.5, "keep -0.5 must be a share above 0 and at most 1"),
        (1.2, "keep 1.2 must be a share above 0 and at most 1"),
        (float("nan"), "keep nan must be a share above 0 and at most 1"),
        (0.01, "keep 0.01 leaves some heads no channel: keep at least 0.033"),
    ],
)
def test_budgets_that_cannot_be(keep: float, message: str) -> None:
    with pytest.raises(NanocapError) as caught:
        check_keep(AXES, keep)
    assert str(caught.value) == message


def test_the_least_budget_can_be_met() -> None:
    check_keep(AXES, 0.033)
    assert left(choose(AXES, drawn(1), 0.033)) <= 0.033
