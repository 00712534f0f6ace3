"""Captions that students give while they train and teach: sampled for reward, greedy for the
curves, with several beams as labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from nanocap.student import Student
from nanocap.student.controls import END, LENGTH, PAD, QUALITY, SPECIALS
from nanocap.student.evidence import Seen, has_said, with_copies
from nanocap.student.layers import NEVER
from nanocap.student.search import Choice, Search, likeliest

LONGEST = 28  # positions that a caption drawn in training may take; few people write more

PROMPT = (QUALITY["high"], LENGTH["any"])  # what captions are asked for with
NO_TEXT = [piece for piece in range(len(SPECIALS)) if piece != END]


@dataclass(frozen=True)
class Hypothesis:
    """Pieces without the end token, and their summed log probability over length."""

    ids: tuple[int, ...]
    score: float


@torch.no_grad()
def roll_out(
    student: Student, seen: Seen, captions: int, sample: bool, temperature: float = 1.0
) -> list[list[int]]:
    """Pieces of `captions` captions a photo, each with its end token unless it was cut.

    Args:
        seen: what its encoder makes of B photos.
        sample: draw from the distribution; otherwise take the likeliest piece.
        temperature: what the log probabilities are divided by before a piece is drawn.
    Returns:
        B * captions rows, those of one photo side by side.
    """
    choice = partial(drawn, temperature=temperature) if sample else likeliest
    ids, _ = _search([student], [seen], captions, beams=1, choice=choice)
    return [[piece for piece in row if piece != PAD] for row in ids.flatten(0, 1).tolist()]


@torch.no_grad()
def beam_search(
    students: Sequence[Student], pixels_BCHW: Tensor, beams: int, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """At most `beams` captions of each photo, the best first, at least one.

    The students' probabilities are averaged at every step; they must share one vocabulary.

    Args:
        pixels_BCHW: normalized, as all of the students expect them.
        length_penalty: see `nanocap.student.search`.
    """
    seen = [student.encoder(pixels_BCHW) for student in students]
    ids, scores = _search(students, seen, 1, beams, penalty=length_penalty)
    return [
        [
            Hypothesis(tuple(piece for piece in row if piece not in (PAD, END)), score)
            for row, score in zip(photo_rows, photo_scores, strict=True)
            if score > NEVER / 2
        ]
        for photo_rows, photo_scores in zip(ids.tolist(), scores.tolist(), strict=True)
    ]


def drawn(scores_BN: Tensor, count: int, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """A choice for `Search`, of one beam: a sample, by the inverse of the distribution function.

    `torch.multinomial` draws a random number for each of the N pieces: a sixth of a step.
    """
    cumulated = (scores_BN / temperature).softmax(1).cumsum(1)
    uniform = torch.rand(len(cumulated), 1, device=cumulated.device)
    # scaled by the last entry, which rounding leaves a little off one
    place = torch.searchsorted(cumulated, uniform * cumulated[:, -1:], right=True)
    place = place.clamp_max(scores_BN.shape[1] - 1)
    rest = (0, count - 1)  # there is no second best
    return F.pad(scores_BN.gather(1, place), rest, value=NEVER), F.pad(place, rest)


def to_texts(tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> list[str]:
    """Plain text of each row of pieces."""
    texts: list[str] = tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=True)
    return [text.strip() for text in texts]


def _search(
    students: Sequence[Student],
    several: Sequence[Seen],
    captions: int,
    beams: int,
    *,
    choice: Choice = likeliest,
    penalty: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Searches for `captions` captions of each photo, apart from each other.

    Returns:
        pieces [B, captions * beams, T], `PAD` behind them, and scores [B, captions * beams].
    """
    photos, device = len(several[0].tokens), several[0].tokens.device
    members = [
        _Decoding(student, seen, captions * beams)
        for student, seen in zip(students, several, strict=True)
    ]
    dimensions = students[0].dimensions
    longest = min(LONGEST, *(student.dimensions.max_tokens for student in students)) - 1
    search = Search(dimensions.vocabulary, longest, END, PAD, NO_TEXT, choice=choice).to(device)
    quality, length = (torch.tensor([control], device=device) for control in PROMPT)
    state = search.begin(
        photos * captions, beams, quality, length, torch.tensor([penalty], device=device)
    )
    state = state._replace(bias=torch.zeros((), device=device))
    ids = state.answer_ids.reshape(photos, captions * beams, longest)
    scores = state.answer_scores.reshape(photos, captions * beams)
    left = torch.arange(photos, device=device)  # photos of which some caption has not ended
    while len(left):
        rows_of = (len(left), captions * beams)
        said = _mean_logits(members, state.tokens.reshape(rows_of), state.ids.reshape(*rows_of, -1))
        state, rows = search.step(state, said.reshape(len(left) * captions, beams, -1))
        ids[left] = state.answer_ids.reshape(len(left), captions * beams, longest)
        scores[left] = state.answer_scores.reshape(len(left), captions * beams)
        going = state.going.reshape(-1, captions).any(1).nonzero().squeeze(1)
        stopped = len(going) < len(left)
        if stopped or beams > 1:
            rows = rows.reshape(len(left), -1)[going].flatten()
            for member in members:
                member.go_on(rows, going)
        if stopped:  # half of the photos end long before the last one does
            left = left[going]
            first = torch.arange(captions, device=device)
            state = state.some((going.unsqueeze(1) * captions + first).flatten())
    return ids, scores


class _Decoding:
    """A student's decoder while it speaks: some captions of each photo, caches that grow."""

    def __init__(self, student: Student, seen: Seen, captions: int):
        self._decoder = student.decoder
        self._memory = student.decoder.cross(seen)
        layers, photos = self._memory.keys.shape[:2]
        width = student.dimensions.widths.decoder_attention
        self._keys = self._memory.keys.new_zeros(layers, photos * captions, 0, width)
        self._values = self._keys

    def step(self, tokens_BK: Tensor, ids_BKT: Tensor) -> Tensor:
        """Logits [B, K, V] of the next piece; pieces that are no text are out of reach.

        Args:
            ids_BKT: the pieces of each caption so far.
        """
        here = torch.tensor([self._keys.shape[2]], device=tokens_BK.device)
        # a position attends to what is there: the cache is no longer than that
        keys, values = (F.pad(cache, (0, 0, 0, 1)) for cache in (self._keys, self._values))
        logits, copies, self._keys, self._values = self._decoder.step(
            tokens_BK, here, self._memory, keys, values
        )
        scores, evidence = logits.float(), self._memory.evidence
        if evidence.shape[1]:
            said = has_said(ids_BKT, evidence)
            scores = with_copies(scores, copies.float(), evidence, said)
        scores[..., NO_TEXT] = float("-inf")
        return scores

    def go_on(self, rows: Tensor, photos: Tensor) -> None:
        """Let each caption go on from the cache of another row, of some photos only."""
        self._keys, self._values = self._keys[:, rows], self._values[:, rows]
        self._memory = self._memory.some(photos)


def _mean_logits(members: Sequence[_Decoding], tokens_BK: Tensor, ids_BKT: Tensor) -> Tensor:
    """Logits [B, K, V] of the members' mean probability."""
    if len(members) == 1:
        return members[0].step(tokens_BK, ids_BKT)
    said = (member.step(tokens_BK, ids_BKT).softmax(-1) for member in members)
    return (sum(said, torch.zeros(())) / len(members)).clamp_min(1e-20).log()
