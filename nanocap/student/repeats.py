"""Which piece would say a word or a phrase twice in a row: "red red", "blue and blue".

A search never takes these. Weak students, and good ones on odd pictures, run into such loops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nanocap.bundle.vocabulary import WORD_MARK
from nanocap.student.layers import NEVER

JOINING = ("and", "or")
# How a phrase may not come again: its length in pieces, and the joining pieces in between.
WAYS = (*((length, 0) for length in range(1, 7)), *((length, 1) for length in range(1, 5)))
WINDOW = max(2 * length - 1 + between for length, between in WAYS)  # pieces that a repeat may span


class RepeatRule(nn.Module):
    """Keeps such pieces out of reach.

    Args:
        pieces: of the vocabulary, in the order of their ids. A phrase starts where a word does.
    """

    left: Tensor
    right: Tensor
    first: Tensor
    again: Tensor
    between: Tensor
    alone: Tensor
    starts: Tensor
    joins: Tensor

    def __init__(self, pieces: Sequence[str]) -> None:
        super().__init__()
        joining = [f"{WORD_MARK}{word}" for word in JOINING]
        length, between = np.array(WAYS).T
        first = WINDOW + 1 - 2 * length - between  # where in the window the phrase begins
        last = first + length - 1
        left, right = np.zeros((2, len(WAYS), max(length) - 1), np.int64)  # place 0 equals place 0
        for way, count in enumerate(length - 1):
            left[way, :count] = np.arange(first[way], last[way])
            right[way, :count] = np.arange(WINDOW - count, WINDOW)
        for name, values in {
            "left": left.ravel(),
            "right": right.ravel(),
            "first": first,
            "again": last,
            "between": np.minimum(last + 1, WINDOW - 1),
            "alone": between == 0,
            "starts": np.array([piece.startswith(WORD_MARK) for piece in pieces]),
            "joins": np.isin(list(pieces), joining),
        }.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(values)), persistent=False)

    def forward(self, scores_BKV: Tensor, past_BKW: Tensor) -> Tensor:
        """The scores, with the pieces that would repeat what stands behind them out of reach."""
        images, beams, _ = past_BKW.shape
        left, right = past_BKW.index_select(2, self.left), past_BKW.index_select(2, self.right)
        same = (left == right).reshape(images, beams, len(WAYS), -1).all(3)
        starts = _entries(self.starts, past_BKW.index_select(2, self.first))
        joins = _entries(self.joins, past_BKW.index_select(2, self.between))
        again = torch.logical_and(
            torch.logical_and(same, starts), torch.logical_or(joins, self.alone)
        )
        pieces = past_BKW.index_select(2, self.again)
        return scores_BKV.scatter_add(2, pieces, again.float() * NEVER)


def _entries(table_V: Tensor, index: Tensor) -> Tensor:
    """The table's entries, in the shape of the index."""
    return table_V.index_select(0, index.flatten()).reshape(index.shape)
