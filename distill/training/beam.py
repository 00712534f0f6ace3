"""Beam search in torch over one student or the average of several: what teachers label with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nanocap.distill.data.tokenizer import END, PREFIX
from nanocap.distill.training.decoding import LONGEST, PROMPT, Decoding
from nanocap.student import Student

OUT_OF_REACH = -1e9


@dataclass(frozen=True)
class Hypothesis:
    """Pieces without the end token, and their summed log probability over length."""

    ids: tuple[int, ...]
    score: float


@torch.no_grad()
def beam_search(
    students: Sequence[Student], pixels_BCHW: Tensor, beams: int, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """The `beams` best captions of each photo, best first.

    The students' probabilities are averaged at every step; they must share one vocabulary. A
    hypothesis that ended keeps its beam and its sum, and competes by its score.

    Args:
        pixels_BCHW: normalized, as all of the students expect them.
        length_penalty: the sum is divided by `length ** length_penalty`.
    """
    photos, device = pixels_BCHW.shape[0], pixels_BCHW.device
    members = [Decoding(student, student.encoder(pixels_BCHW), beams) for student in students]
    places = min(LONGEST, *(student.dimensions.max_tokens for student in students))
    for position, control in enumerate(PROMPT):
        tokens = torch.full((photos, beams), control, dtype=torch.int64, device=device)
        following = _mean_log_probability(members, tokens, position)
    sums = torch.full((photos, beams), OUT_OF_REACH, device=device)
    sums[:, 0] = 0.0  # all beams are equal at first: one is enough
    rows = torch.zeros(photos, beams, 0, dtype=torch.int64, device=device)
    ended = torch.zeros(photos, beams, dtype=torch.bool, device=device)
    lengths = torch.zeros(photos, beams, device=device)
    first = torch.arange(photos, device=device).unsqueeze(1) * beams
    for position in range(PREFIX, places + 1):
        vocabulary = following.shape[2]
        only_end = torch.full_like(following, OUT_OF_REACH)
        only_end[:, :, END] = 0.0
        totals = sums.unsqueeze(2) + torch.where(ended.unsqueeze(2), only_end, following)
        length = lengths + (~ended).float()
        scores = totals / length.clamp_min(1).unsqueeze(2) ** length_penalty
        flat = scores.flatten(1).topk(beams).indices
        parent, piece = flat // vocabulary, flat % vocabulary
        sums = totals.flatten(1).gather(1, flat)
        lengths = length.gather(1, parent)
        ended = ended.gather(1, parent) | (piece == END)
        rows = rows.gather(1, parent.unsqueeze(2).expand(-1, -1, rows.shape[2]))
        rows = torch.cat([rows, piece.unsqueeze(2)], dim=2)
        if bool(ended.all()) or position == places:
            break
        for member in members:
            member.reorder((first + parent).flatten())
        following = _mean_log_probability(members, piece, position)
    scores = sums / lengths**length_penalty
    return [
        [
            Hypothesis(tuple(row[: row.index(END)] if END in row else row), score)
            for row, score in zip(photo_rows, photo_scores, strict=True)
        ]
        for photo_rows, photo_scores in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def _mean_log_probability(members: Sequence[Decoding], tokens: Tensor, position: int) -> Tensor:
    said = (member.step(tokens, position).softmax(-1) for member in members)
    total = sum(said, torch.zeros(()))
    return (total / len(members)).clamp_min(1e-20).log()
