"""Captions drawn from the student while it trains: sampled for reward, greedy for the curves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from nanocap.distill.data.tokenizer import END, PREFIX
from nanocap.distill.training.decoding import LONGEST, PROMPT, Decoding
from nanocap.student import Student


@torch.no_grad()
def roll_out(student: Student, visual_BNC: Tensor, captions: int, sample: bool) -> list[list[int]]:
    """Pieces of `captions` captions a photo, each with its end token unless it was cut.

    Args:
        visual_BNC: visual tokens of B photos.
        sample: draw from the distribution; otherwise take the likeliest piece.
    Returns:
        B * captions rows, those of one photo side by side.
    """
    decoding = Decoding(student, visual_BNC, captions)
    photos, device = visual_BNC.shape[0], visual_BNC.device
    places = min(LONGEST, student.dimensions.max_tokens)
    drawn = torch.full((photos, captions, places - PREFIX + 1), END, device=device)
    going = torch.arange(photos, device=device)  # photos of which some caption has not ended
    for position in range(places):
        if position < PREFIX:
            tokens = drawn.new_full((photos, captions), PROMPT[position])
        scores = decoding.step(tokens, position)
        if position < PREFIX - 1:
            continue
        piece = _draw(scores) if sample else scores.argmax(-1)
        tokens = torch.where(tokens == END, END, piece)
        drawn[going, :, position - PREFIX + 1] = tokens
        left = (tokens != END).any(1).nonzero().squeeze(1)
        if not len(left):
            break
        if len(left) < len(going):  # half of the photos end long before the last one does
            going, tokens = going[left], tokens[left]
            decoding.keep(left)
    rows = drawn.flatten(0, 1).tolist()
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


def _draw(scores: Tensor) -> Tensor:
    """Sample from logits [..., V] by the inverse of the distribution function.

    `torch.multinomial` draws a random number for each of the V pieces: a sixth of a step.
    """
    cumulated = scores.softmax(-1).cumsum(-1)
    uniform = torch.rand(cumulated.shape[:-1], device=scores.device).unsqueeze(-1)
    # scaled by the last entry, which rounding leaves a little off one
    drawn = torch.searchsorted(cumulated, uniform * cumulated[..., -1:], right=True).squeeze(-1)
    return drawn.clamp_max(scores.shape[-1] - 1)


def to_texts(tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> list[str]:
    """Plain text of each row of pieces."""
    texts: list[str] = tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=True)
    return [text.strip() for text in texts]
