"""Captions drawn from the student while it trains: sampled for reward, greedy for the curves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from nanocap.distill.tokenizer import END, LENGTH, PREFIX, QUALITY, SPECIALS
from nanocap.student import Student

LONGEST = 28  # positions that a caption drawn in training may take; few people write more

PROMPT = (QUALITY["high"], LENGTH["any"])  # what captions are asked for with
NEVER = [piece for piece in range(len(SPECIALS)) if piece != END]


def text_scores(logits: Tensor) -> Tensor:
    """Logits [..., V] in fp32, with the pieces that are no text out of reach."""
    scores = logits.float()
    scores[..., NEVER] = float("-inf")
    return scores


@torch.no_grad()
def roll_out(student: Student, visual_BNC: Tensor, captions: int, sample: bool) -> list[list[int]]:
    """Pieces of `captions` captions a photo, each with its end token unless it was cut.

    Args:
        visual_BNC: visual tokens of B photos.
        sample: draw from the distribution; otherwise take the likeliest piece.
    Returns:
        B * captions rows, those of one photo side by side.
    """
    decoder = student.decoder
    photos, device = visual_BNC.shape[0], visual_BNC.device
    cross_keys, cross_values = decoder.cross(visual_BNC)
    layers, width = len(cross_keys), student.dimensions.widths.decoder_attention
    keys = torch.zeros(layers, photos * captions, 0, width, device=device, dtype=cross_keys.dtype)
    values = keys
    places = min(LONGEST, student.dimensions.max_tokens)
    table = torch.full((photos, captions, places), END, device=device)
    going = torch.arange(photos, device=device)  # photos of which some caption has not ended
    tokens = torch.zeros(photos, captions, dtype=torch.int64, device=device)
    ended = torch.zeros(photos, captions, dtype=torch.bool, device=device)
    for position in range(places):
        if position < PREFIX:
            tokens = torch.full_like(tokens, PROMPT[position])
        here = torch.tensor([position], device=device)
        # the cache grows with the captions: a position attends to what is there, no more
        keys, values = F.pad(keys, (0, 0, 0, 1)), F.pad(values, (0, 0, 0, 1))
        logits, keys, values = decoder.step(tokens, here, cross_keys, cross_values, keys, values)
        if position < PREFIX - 1:
            continue
        scores = text_scores(logits)
        tokens = _draw(scores) if sample else scores.argmax(-1)
        tokens = torch.where(ended, END, tokens)
        table[going, :, position - PREFIX + 1] = tokens
        ended = ended | (tokens == END)
        left = (~ended.all(1)).nonzero().squeeze(1)
        if not len(left):
            break
        if len(left) < len(going):  # half of the photos end long before the last one does
            going, tokens, ended = going[left], tokens[left], ended[left]
            cross_keys, cross_values = cross_keys[:, left], cross_values[:, left]
            keys, values = (_of_photos(cache, left, captions) for cache in (keys, values))
    cut = places - PREFIX + 1
    rows = table[:, :, :cut].flatten(0, 1).tolist()
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


def _of_photos(cache: Tensor, photos: Tensor, captions: int) -> Tensor:
    """The part of a cache [layers, photos * captions, places, width] that is of these photos."""
    layers, _, places, width = cache.shape
    return cache.reshape(layers, -1, captions, places, width)[:, photos].flatten(1, 2)


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
