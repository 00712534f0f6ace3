"""Merging as one matrix product against ToMe as it is usually written, token by token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nanocap.student.merging import (
    apply_assignment,
    bipartite_soft_matching,
    one_hot,
    rank_descending,
    select,
)


def merge_by_hand(metric_NC: Tensor, x_NC: Tensor, size_N: Tensor, keep: int) -> list[Tensor]:
    """ToMe of one example: sort the edges, scatter the merged tokens. Returns tokens and sizes."""
    unit = torch.nn.functional.normalize(metric_NC, dim=1)
    evens, odds = range(0, len(unit), 2), range(1, len(unit), 2)
    edges = []
    for even in evens:
        similarity = [float(unit[even] @ unit[odd]) for odd in odds]
        best = max(range(len(similarity)), key=lambda i: similarity[i])
        edges.append((similarity[best], even, odds[best]))
    merged = sorted(edges, key=lambda edge: -edge[0])[: len(unit) - keep]
    groups = {odd: [odd] for odd in odds}
    for _, even, odd in merged:
        groups[odd].append(even)
    gone = {even for _, even, _ in merged}
    rows = [[even] for even in evens if even not in gone] + [groups[odd] for odd in odds]
    sizes = torch.stack([size_N[row].sum() for row in rows])
    means = [(x_NC[row] * size_N[row, None]).sum(0) / size_N[row].sum() for row in rows]
    return [torch.stack(means), sizes]


@pytest.mark.parametrize("tokens", [2, 3, 7, 16, 49, 98])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_merging_is_tome(tokens: int, share: float) -> None:
    keep = tokens - int(share * (tokens - tokens // 2))
    metric, x = torch.randn(3, tokens, 8), torch.randn(3, tokens, 5)
    size = torch.randint(1, 5, (3, tokens, 1)).float()
    merged, sizes = apply_assignment(bipartite_soft_matching(metric, keep), x, size)
    assert merged.shape == (3, keep, 5)
    for index in range(3):
        means, expected = merge_by_hand(metric[index], x[index], size[index, :, 0], keep)
        torch.testing.assert_close(merged[index], means)
        torch.testing.assert_close(sizes[index, :, 0], expected)


def test_similar_tokens_are_those_that_merge() -> None:
    """Of six tokens two point the same way: only they become one, at the odd one's place."""
    metric = torch.eye(6).unsqueeze(0)
    metric[0, 4] = 7 * metric[0, 1]  # longer, but in the same direction
    assignment = bipartite_soft_matching(metric, 5)[0]
    groups = [row.nonzero()[:, 0].tolist() for row in assignment]
    assert groups == [[0], [2], [1, 4], [3], [5]]


def test_ties_fall_to_the_lower_index() -> None:
    assignment = bipartite_soft_matching(torch.ones(2, 8, 3), 6)
    for one in assignment:
        groups = [row.nonzero()[:, 0].tolist() for row in one]
        assert groups == [[4], [6], [0, 1, 2], [3], [5], [7]]


def test_ranks_of_ties() -> None:
    score = torch.tensor([[2.0, 5.0, 2.0, 5.0, 1.0]])
    assert rank_descending(score).tolist() == [[2, 0, 3, 1, 4]]
    assert rank_descending(torch.zeros(1, 4)).tolist() == [[0, 1, 2, 3]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20))
def test_rank_is_a_stable_sort(scores: list[int]) -> None:
    rank = rank_descending(torch.tensor([scores], dtype=torch.float32))[0]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    assert [int(rank[i]) for i in order] == list(range(len(scores)))


def test_one_hot_outside_is_a_row_of_zeros() -> None:
    table = one_hot(torch.tensor([[0, 2, 3, -1]]), 3)[0]
    assert table.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=20).filter(any))
def test_select_keeps_the_chosen_in_order(chosen: list[bool]) -> None:
    keep = sum(chosen)
    assignment = select(torch.tensor([chosen]).float(), keep)
    x = torch.arange(len(chosen)).float().reshape(1, -1, 1)
    kept, _ = apply_assignment(assignment, x, torch.ones_like(x))
    assert kept.flatten().tolist() == [i for i, yes in enumerate(chosen) if yes]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_merging_loses_no_mass(data: st.DataObject) -> None:
    batch, tokens = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 24))
    keep = data.draw(st.integers(tokens // 2, tokens))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    # few distinct values, so that equal similarities are met as well
    metric = torch.randint(-1, 2, (batch, tokens, 3), generator=generator).float()
    size = torch.randint(1, 9, (batch, tokens, 1), generator=generator).float()
    x = torch.randn(batch, tokens, 4, generator=generator)
    assignment = bipartite_soft_matching(metric, keep)
    assert assignment.shape == (batch, keep, tokens)
    assert torch.equal(assignment.sum(1), torch.ones(batch, tokens))  # each token goes to one place
    merged, sizes = apply_assignment(assignment, x, size)
    torch.testing.assert_close(sizes.sum(1), size.sum(1))
    torch.testing.assert_close((merged * sizes).sum(1), (x * size).sum(1), rtol=1e-4, atol=1e-4)


def test_means_keep_the_dtype_of_the_tokens() -> None:
    x = torch.randn(1, 4, 3, dtype=torch.bfloat16)
    merged, sizes = apply_assignment(
        bipartite_soft_matching(torch.randn(1, 4, 3), 2), x, torch.ones(1, 4, 1)
    )
    assert merged.dtype == torch.bfloat16
    assert sizes.dtype == torch.float32  # a size of some hundreds is no number of bfloat16


def test_gradients_reach_every_token_by_its_share() -> None:
    x = torch.randn(2, 9, 3, requires_grad=True)
    size = torch.randint(1, 4, (2, 9, 1)).float()
    assignment = bipartite_soft_matching(torch.randn(2, 9, 4), 5)
    merged, sizes = apply_assignment(assignment, x, size)
    merged.sum().backward()
    assert x.grad is not None
    share = (assignment.transpose(1, 2) @ (1 / sizes)) * size
    torch.testing.assert_close(x.grad, share.expand(-1, -1, 3))
