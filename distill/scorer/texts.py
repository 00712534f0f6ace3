"""Texts as the text tower takes them: pieces and the end, no control tokens, padded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from nanocap.distill.tokenizer import PAD, encode, normalize


def to_ids(tokenizer: Tokenizer, texts: Sequence[str], max_pieces: int) -> list[list[int]]:
    """Pieces of each text, normalized as captions are; never none, for the end is one."""
    return encode(tokenizer, [normalize(text) for text in texts], max_pieces)


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids int64 [R, T] and the mask [R, T], 1 for a piece and 0 for padding."""
    table = torch.full((len(rows), max(map(len, rows))), PAD, dtype=torch.int64)
    for index, row in enumerate(rows):
        table[index, : len(row)] = torch.tensor(row)
    return table, (table != PAD).to(torch.int64)
