"""Ways to go from many visual tokens to few, behind one method: `assign`.

To add one, write a class with `assign` and register it.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from nanocap.errors import NanocapError
from nanocap.student.merging import bipartite_soft_matching, one_hot, rank_descending, select


class Reducer(Protocol):
    """Says which input tokens make up each of `keep` output tokens."""

    def assign(self, keys_BNC: Tensor, attention_BN: Tensor, keep: int) -> Tensor:
        """Assignment matrix [batch, keep, tokens] (see `merging`).

        Args:
            keys_BNC: the block's attention keys [batch, tokens, channels].
            attention_BN: attention that each token receives, mean over heads and queries.
            keep: tokens that remain.
        """
        ...


class Merge:
    """Token merging (ToMe): at most half of the tokens merge into their nearest neighbour."""

    def assign(self, keys_BNC: Tensor, attention_BN: Tensor, keep: int) -> Tensor:
        if keep < keys_BNC.shape[1] // 2:
            raise NanocapError(
                f"merge keeps at least half of {keys_BNC.shape[1]} tokens, not {keep}: "
                "merge in more blocks"
            )
        return bipartite_soft_matching(keys_BNC, keep)


class Pool:
    """Average pooling on the grid (InfMLLM's pool-adapter): the baseline to beat."""

    def assign(self, keys_BNC: Tensor, attention_BN: Tensor, keep: int) -> Tensor:
        batch, tokens, _ = keys_BNC.shape
        (rows, columns), (new_rows, new_columns) = grid_of(tokens), grid_of(keep)
        if new_rows > rows or new_columns > columns:
            raise NanocapError(
                f"pool cannot make {keep} cells ({new_rows} x {new_columns}) of a "
                f"{rows} x {columns} grid: choose another keep"
            )
        place = torch.arange(tokens, device=keys_BNC.device)
        row = (place // columns) * new_rows // rows
        column = (place % columns) * new_columns // columns
        cell = row * new_columns + column
        return one_hot(cell.unsqueeze(0), keep).transpose(1, 2).expand(batch, keep, tokens)


class PruneRank:
    """Keep the tokens that receive most attention (FoPru, by rank), in their original order."""

    def assign(self, keys_BNC: Tensor, attention_BN: Tensor, keep: int) -> Tensor:
        return select((rank_descending(attention_BN) < keep).float(), keep)


class PruneRow:
    """Keep the rows of the image that receive most attention (FoPru, by row).

    Whole rows first; the last row that fits only in part gives its most attended tokens.
    """

    def __init__(self, row_length: int = 14):
        self.row_length = row_length

    def assign(self, keys_BNC: Tensor, attention_BN: Tensor, keep: int) -> Tensor:
        tokens = attention_BN.shape[1]
        row = torch.arange(tokens, device=attention_BN.device) // self.row_length
        rows = -(-tokens // self.row_length)
        member = one_hot(row.unsqueeze(0), rows)[0]  # [tokens, rows]
        mean = (attention_BN @ member) / member.sum(0)
        row_rank = rank_descending(mean) @ member.transpose(0, 1)  # [B, tokens]
        own_rank = rank_descending(attention_BN)
        # two whole-number ranks in one number: any row outweighs every place within a row
        return select((rank_descending(-(row_rank * tokens + own_rank)) < keep).float(), keep)


class KeepCluster:
    """Keep the primary tokens, merge every other into the most similar of them (VMTC)."""

    def assign(self, keys_BNC: Tensor, attention_BN: Tensor, keep: int) -> Tensor:
        primary = (rank_descending(attention_BN) < keep).float()  # [B, N]
        kept = select(primary, keep)  # [B, keep, N]
        unit = keys_BNC / keys_BNC.norm(dim=2, keepdim=True).clamp_min(1e-6)
        similarity = unit @ (kept @ unit).transpose(1, 2)  # [B, N, keep]
        nearest = one_hot(similarity.argmax(2), keep).transpose(1, 2)  # [B, keep, N]
        return kept + nearest * (1 - primary).unsqueeze(1)


class NoReduction:
    """All tokens stay; `keep` must say so."""

    def assign(self, keys_BNC: Tensor, attention_BN: Tensor, keep: int) -> Tensor:
        batch, tokens, _ = keys_BNC.shape
        if keep != tokens:
            raise NanocapError(f"the reducer 'none' keeps all {tokens} tokens, not {keep}")
        return torch.eye(tokens, device=keys_BNC.device).expand(batch, tokens, tokens)


REDUCERS: dict[str, type[Reducer]] = {
    "merge": Merge,
    "pool": Pool,
    "prune-rank": PruneRank,
    "prune-row": PruneRow,
    "keep-cluster": KeepCluster,
    "none": NoReduction,
}


def make_reducer(name: str) -> Reducer:
    """The reducer registered under `name`.

    Raises:
        NanocapError: no reducer has this name.
    """
    if name not in REDUCERS:
        raise NanocapError(f"unknown reducer {name!r}; known are {', '.join(REDUCERS)}")
    return REDUCERS[name]()


def grid_of(tokens: int) -> tuple[int, int]:
    """Rows and columns of the most square grid of so many tokens: 98 gives (14, 7)."""
    columns = next(c for c in range(int(tokens**0.5), 0, -1) if tokens % c == 0)
    return tokens // columns, columns
