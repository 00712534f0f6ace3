"""The loss of a batch: the three terms put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from nanocap.distill.data.batches import Schedule
from nanocap.distill.data.scorer_texts import pad
from nanocap.distill.scorer.losses import contrast, likeness, masked_language, soft_targets
from nanocap.distill.scorer.recipe import Training
from nanocap.scorer import Scorer
from nanocap.scorer.scorer import late_interaction


@dataclass(frozen=True)
class Texts:
    """Captions of a batch: text `r` is about photo `image[r]` of the batch."""

    tokens: Tensor  # int64 [R, T]
    mask: Tensor  # int64 [R, T]
    hidden: Tensor  # bool [R, T], pieces that the masked-language term asks for
    image: Tensor  # int64 [R]
    positive: Tensor  # bool [B, R], whether the text was written about the photo

    def to(self, device: torch.device) -> Texts:
        """The same on another device."""
        return Texts(*(getattr(self, field.name).to(device) for field in fields(self)))


def draw(
    ids: Sequence[Sequence[Sequence[int]]],
    schedule: Schedule,
    step: int,
    photos: Sequence[int],
    training: Training,
) -> Texts:
    """The step's captions and what of them is hidden, by randomness of each photo's own place.

    Args:
        ids: pieces of every caption of every photo of the corpus.
        photos: rows of the corpus; one may stand in a batch twice, then both own its captions.
    """
    rows: list[Sequence[int]] = []
    image: list[int] = []
    hidden: list[np.ndarray] = []
    for place, photo in enumerate(photos):
        random = schedule.random(step, place, 1)
        for caption in random.permutation(len(ids[photo]))[: training.captions]:
            row = ids[photo][caption]
            rows.append(row)
            image.append(place)
            hidden.append(random.random(len(row)) < training.hidden)
    tokens, mask = pad(rows)
    asked = torch.zeros_like(mask, dtype=torch.bool)
    for index, chosen in enumerate(hidden):
        asked[index, : len(chosen)] = torch.from_numpy(chosen)
    photo_B, image_R = torch.tensor(list(photos)), torch.tensor(image)
    return Texts(tokens, mask, asked, image_R, photo_B[:, None] == photo_B[image_R][None, :])


def objective(
    scorer: Scorer, inputs: Tensor, texts: Texts, training: Training, progress: float, narrow: bool
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, and its terms in nats.

    Args:
        inputs: the trunk's middle maps of the B photos.
        progress: of the run, 0 to 1. The negatives' share grows with it, as in LightCLIP: before
            the towers know anything, there is nothing to soften.
        narrow: whether the towers work in bfloat16; the similarities are always float.
    """
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=narrow):
        seen = scorer.image.from_map(inputs)
        read = scorer.text(texts.tokens, texts.mask)
        guesses = scorer.text.guess(texts.tokens, texts.mask, texts.hidden, seen.whole[texts.image])
    photos = len(inputs)
    like = training.likeness * likeness(read.whole, texts.image, photos)
    share = training.softening * progress
    by_photo = soft_targets(texts.positive, share, like)
    by_text = soft_targets(texts.positive.T, share, like.T)
    whole_scale, token_scale = scorer.scales()
    logits = whole_scale * seen.whole @ read.whole.T
    whole = (contrast(logits, by_photo) + contrast(logits.T, by_text)) / 2
    by_visual, by_piece = late_interaction(seen.tokens, read.tokens, texts.mask)
    matched = contrast(token_scale * by_visual, by_photo)
    matched = (matched + contrast(token_scale * by_piece.T, by_text)) / 2
    guessed = masked_language(guesses, texts.tokens[texts.hidden])
    terms = {"contrast": whole, "matching": matched, "masked": guessed}
    total = whole + training.matching * matched + training.masked * guessed
    return total, {name: float(term.detach()) for name, term in terms.items()}
