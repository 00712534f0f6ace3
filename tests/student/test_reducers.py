"""The rivals of merging, behind one interface."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nanocap.errors import NanocapError
from nanocap.student import Dimensions
from nanocap.student.encoder import EncoderBlock
from nanocap.student.merging import apply_assignment
from nanocap.student.reducers import REDUCERS, PruneRow, grid_of, make_reducer

CONSERVING = ("merge", "pool", "keep-cluster", "none")
PRUNING = ("prune-rank", "prune-row")


def kept(assignment_BKN: Tensor) -> list[list[list[int]]]:
    """Indices of the tokens behind every output token."""
    return [[row.nonzero()[:, 0].tolist() for row in one] for one in assignment_BKN]


def test_the_registry_holds_the_reducers_of_the_design() -> None:
    assert set(REDUCERS) == {*CONSERVING, *PRUNING}


@pytest.mark.parametrize("name", REDUCERS)
def test_keeping_all_is_identity(name: str, small: Dimensions) -> None:
    """A block that keeps all of its tokens does the same under every reducer."""
    x, size = torch.randn(2, 16, 32), torch.randint(1, 4, (2, 16, 1)).float()
    plain = EncoderBlock(replace(small, reducer="none"), keep=16)
    block = EncoderBlock(replace(small, reducer=name), keep=16)
    block.load_state_dict(plain.state_dict())
    ours, sizes = block(x, size)
    assert torch.equal(ours, plain(x, size)[0])
    assert torch.equal(sizes, size)


@pytest.mark.parametrize("name", REDUCERS)
def test_assigning_all_loses_and_mixes_nothing(name: str) -> None:
    assignment = make_reducer(name).assign(torch.randn(2, 28, 4), torch.rand(2, 28), 28)
    assert torch.equal(assignment.sum(1), torch.ones(2, 28))
    assert torch.equal(assignment.sum(2), torch.ones(2, 28))
    if name != "merge":  # which puts the even tokens before the odd ones
        assert torch.equal(assignment, torch.eye(28).expand(2, -1, -1))


@pytest.mark.parametrize("name", [name for name in CONSERVING if name != "none"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_mass_is_conserved(name: str, data: st.DataObject) -> None:
    if name == "pool":  # grids that its cells fit in
        tokens, keep = data.draw(
            st.sampled_from([(196, 98), (196, 49), (98, 49), (16, 4), (25, 4)])
        )
    else:
        tokens = data.draw(st.integers(2, 40))
        keep = data.draw(st.integers(max(1, tokens // 2), tokens))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    keys = torch.randint(-1, 2, (2, tokens, 3), generator=generator).float()
    attention = torch.randint(0, 4, (2, tokens), generator=generator).float()
    x = torch.randn(2, tokens, 3, generator=generator)
    size = torch.randint(1, 9, (2, tokens, 1), generator=generator).float()
    assignment = make_reducer(name).assign(keys, attention, keep)
    assert torch.equal(assignment.sum(1), torch.ones(2, tokens))
    assert bool((assignment.sum(2) >= 1).all())  # no empty output token
    reduced, sizes = apply_assignment(assignment, x, size)
    torch.testing.assert_close(sizes.sum(1), size.sum(1))
    torch.testing.assert_close((reduced * sizes).sum(1), (x * size).sum(1), rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_pruning_by_rank_keeps_the_most_attended_in_order(data: st.DataObject) -> None:
    scores = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=30))
    keep = data.draw(st.integers(1, len(scores)))
    attention = torch.tensor([scores]).float()
    assignment = make_reducer("prune-rank").assign(torch.ones(1, len(scores), 2), attention, keep)
    best = sorted(range(len(scores)), key=lambda i: -scores[i])[:keep]  # stable: lower index first
    assert kept(assignment) == [[[i] for i in sorted(best)]]


def test_pruning_leaves_kept_tokens_and_sizes_as_they_are() -> None:
    x, size = torch.randn(1, 6, 2), torch.arange(1.0, 7).reshape(1, 6, 1)
    attention = torch.tensor([[0.1, 0.9, 0.2, 0.8, 0.7, 0.3]])
    assignment = make_reducer("prune-rank").assign(torch.ones(1, 6, 2), attention, 3)
    reduced, sizes = apply_assignment(assignment, x, size)
    assert torch.equal(reduced, x[:, [1, 3, 4]])
    assert sizes.flatten().tolist() == [2, 4, 5]


def test_pruning_by_row_keeps_whole_rows_of_the_image() -> None:
    attention = torch.rand(1, 196) * 0.1
    for row in (11, 3, 6):
        attention[0, row * 14 : row * 14 + 14] += 1
    attention[0, 0] = 10.0  # the best single token of all, in a row of little attention
    assignment = make_reducer("prune-row").assign(torch.ones(1, 196, 2), attention, 42)
    rows = [[row * 14 + column] for row in (3, 6, 11) for column in range(14)]
    assert kept(assignment) == [rows]


def test_pruning_by_row_fills_up_with_the_best_of_the_next_row() -> None:
    attention = torch.tensor([[1.0, 1, 1, 4, 5, 6, 2, 9, 3]])  # means of rows of three: 1, 5, 4.67
    assignment = PruneRow(row_length=3).assign(torch.ones(1, 9, 2), attention, 5)
    assert kept(assignment) == [[[3], [4], [5], [7], [8]]]


def test_pooling_averages_squares_of_the_grid() -> None:
    x = torch.arange(16.0).reshape(1, 16, 1)
    assignment = make_reducer("pool").assign(torch.ones(1, 16, 2), torch.ones(1, 16), 4)
    expected = torch.nn.functional.avg_pool2d(x.reshape(1, 1, 4, 4), 2).flatten()
    reduced, sizes = apply_assignment(assignment, x, torch.ones_like(x))
    assert torch.equal(reduced.flatten(), expected)
    assert sizes.flatten().tolist() == [4, 4, 4, 4]


def test_pooling_to_a_count_that_is_no_grid_is_refused() -> None:
    """147 is 21 x 7, which has more rows than the 14 x 14 map: some cells would be empty."""
    with pytest.raises(NanocapError, match=r"^pool cannot make 147 .*14 x 14"):
        make_reducer("pool").assign(torch.ones(1, 196, 2), torch.ones(1, 196), 147)


@pytest.mark.parametrize(("tokens", "grid"), [(196, (14, 14)), (98, (14, 7)), (49, (7, 7))])
def test_grid_of(tokens: int, grid: tuple[int, int]) -> None:
    assert grid_of(tokens) == grid


def test_clusters_form_around_the_most_attended() -> None:
    keys = torch.tensor([[[1.0, 0], [0, 1], [0.9, 0.1], [0.1, 0.9], [2, 0.1]]])
    attention = torch.tensor([[0.5, 0.4, 0.1, 0.1, 0.1]])
    assignment = make_reducer("keep-cluster").assign(keys, attention, 2)
    assert kept(assignment) == [[[0, 2, 4], [1, 3]]]


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("prune-rank", [[0], [1], [2]]),
        ("prune-row", [[0], [1], [2]]),
        ("keep-cluster", [[0, 3, 4, 5], [1], [2]]),
        ("merge", [[0, 1, 2, 4], [3], [5]]),
    ],
)
def test_constant_input_falls_to_the_lower_index(name: str, groups: list[list[int]]) -> None:
    reducer = make_reducer(name)
    for value in (1.0, 1 / 6, 0.3):
        assignment = reducer.assign(torch.full((2, 6, 4), value), torch.full((2, 6), value), 3)
        assert kept(assignment) == [groups, groups]


@pytest.mark.parametrize("name", [name for name in REDUCERS if name not in ("none", "pool")])
def test_the_same_input_twice_gives_the_same(name: str) -> None:
    keys, attention = torch.randn(3, 20, 4).round(), torch.rand(3, 20).round(decimals=1)
    first = make_reducer(name).assign(keys, attention, 12)
    assert torch.equal(first, make_reducer(name).assign(keys.clone(), attention.clone(), 12))
    alone = torch.cat(
        [make_reducer(name).assign(keys[i, None], attention[i, None], 12) for i in range(3)]
    )
    assert torch.equal(first, alone)  # nor do the photos of a batch meet each other


def test_merging_below_half_is_refused() -> None:
    with pytest.raises(NanocapError, match=r"^merge keeps at least half of 16 tokens, not 7"):
        make_reducer("merge").assign(torch.ones(1, 16, 2), torch.ones(1, 16), 7)


def test_none_refuses_to_reduce() -> None:
    with pytest.raises(NanocapError, match=r"^the reducer 'none' keeps all 16 tokens, not 8$"):
        make_reducer("none").assign(torch.ones(1, 16, 2), torch.ones(1, 16), 8)


def test_unknown_reducer() -> None:
    with pytest.raises(NanocapError, match=r"^unknown reducer 'mirge'; known are merge, pool"):
        make_reducer("mirge")
