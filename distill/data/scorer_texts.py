"""Texts as the text tower takes them: pieces and the end, no control tokens, padded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Regex, Tokenizer, normalizers, processors
from torch import Tensor

from nanocap.distill.data.batches import padded
from nanocap.distill.data.tokenizer import REPLACED
from nanocap.student.controls import END, PAD, SPECIALS


def self_contained(tokenizer: Tokenizer, max_pieces: int) -> Tokenizer:
    """A copy whose `encode(text).ids` is all that the text tower needs, on any device.

    It normalizes as captions are normalized and adds the end, which even an empty text has. A text
    that is too long is cut before its end.
    """
    whole = Tokenizer.from_str(tokenizer.to_str())
    replaced = [normalizers.Replace(Regex(pattern), by) for pattern, by in REPLACED]
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    whole.normalizer = normalizers.Sequence([normalizers.Lowercase(), *replaced, *spaces])
    end = SPECIALS[END]
    whole.post_processor = processors.TemplateProcessing(f"$A {end}", special_tokens=[(end, END)])
    whole.enable_truncation(max_pieces)
    return whole


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids int64 [R, T] and the mask [R, T], 1 for a piece and 0 for padding."""
    table = padded(rows)
    return table, (table != PAD).to(torch.int64)
