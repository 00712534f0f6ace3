"""Last stage, with a student: targets less what the student shows it cannot see.

After KnowAda (Ventura et al. 2024, "Bridging the visual gap"): a student that is taught what it
cannot see learns to make things up. KnowAda asks a model questions; a student that only captions is
asked by its own probabilities. A word that is no more likely with the photo than with other photos
is one that the student would guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nanocap.distill.data.augment import squash
from nanocap.distill.data.batches import pack
from nanocap.distill.data.feature_cache import normalize as to_pixels
from nanocap.distill.data.tokenizer import encode, normalize
from nanocap.distill.labelling.decision import Candidate, Decision
from nanocap.distill.labelling.photos import PhotoShards, open_photo
from nanocap.distill.labelling.proposals import distinct
from nanocap.distill.labelling.text_support import Backing, Piece, pieces, prune
from nanocap.distill.teachers.student import StudentTeacher, load
from nanocap.distill.training.losses import Reader
from nanocap.errors import DataError
from nanocap.measure.metrics.facts import extract
from nanocap.measure.metrics.facts.roles import Role
from nanocap.student.controls import LENGTH, PAD, PREFIX, QUALITIES, QUALITY
from nanocap.student.evidence import Seen

STRANGERS = 8  # photos that stand for any other photo
SEEN = 0.0  # nats that a word must gain by the photo
NOTHING = "the student sees nothing of it"


@dataclass(frozen=True)
class Eyes:
    """A student, and what it says of other photos.

    Attributes:
        strangers: what the student sees of photos that a caption is not about. They
            are the same for every photo, so a word's figure depends on its photo alone.
    """

    student: StudentTeacher
    path: Path
    strangers: Seen

    @classmethod
    def load(cls, path: Path, photos: PhotoShards) -> Eyes:
        """The student of a checkpoint; some of the photos, spread evenly, are the strangers.

        Raises:
            OptionError: it is no finished student.
            NanocapError: the file is missing or damaged.
            DataError: none of the photos that were chosen can be read.
        """
        images = []
        count = min(STRANGERS, len(photos))
        for index in range(count):
            [photo] = photos.read(index * len(photos) // count, 1)
            image = open_photo(photo).image
            if image is not None:
                images.append(image)
        if not images:
            raise DataError(f"{path}: no photo to compare with can be read; name others")
        return cls.beside(path, images)

    @classmethod
    def beside(cls, path: Path, strangers: Sequence[Image.Image]) -> Eyes:
        """The student of a checkpoint, with these photos as the strangers.

        Raises:
            OptionError, NanocapError: as `load`.
        """
        student = load(str(path))
        return cls(student, path, _seen(student, strangers))

    def gains(
        self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]
    ) -> list[list[list[float]]]:
        """For each photo and each of its texts, what every word gains by the photo, in nats.

        That is the log of its probability, given the words before it, over the mean of those that
        the strangers give it. A text longer than the student's has no figures for the rest.
        """
        gains = []
        seen = _seen(self.student, images)
        for photo, several in enumerate(texts):
            reader = self._reader(seen.some(torch.tensor([photo])))
            gains.append([self._gains(reader, one) for one in several])
        return gains

    @torch.no_grad()
    def _reader(self, seen: Seen) -> Reader:
        """The decoder that looks at a photo, and then at the strangers."""
        everyone = Seen(*map(torch.cat, zip(seen, self.strangers, strict=True)))
        return Reader(self.student.students[0].decoder, everyone)

    @torch.no_grad()
    def _gains(self, reader: Reader, text: str) -> list[float]:
        model, tokenizer = self.student.students[0], self.student.tokenizer
        words = normalize(text)
        [ids] = encode(tokenizer, [words], model.dimensions.max_tokens - PREFIX)
        if len(ids) < 2:  # the end alone
            return []
        photos = 1 + len(self.strangers.tokens)
        rows = [[QUALITY[QUALITIES[0]], LENGTH["any"], *ids]] * photos
        captions = pack(rows, range(photos)).to(self.strangers.tokens.device)
        counted = captions.targets != PAD
        logits = reader.logits(captions.tokens, captions.image, counted)
        chosen = logits.log_softmax(-1).gather(1, captions.targets[counted].unsqueeze(1))
        logs = chosen.reshape(photos, -1)
        others = logs[1:].logsumexp(0) - float(np.log(photos - 1))
        return _by_word((logs[0] - others).tolist(), [tokenizer.id_to_token(i) or "" for i in ids])


def adapt(
    decisions: Sequence[Decision], images: Sequence[Image.Image], eyes: Eyes
) -> list[Decision]:
    """The decisions, their kept captions less what the student does not see.

    One of which nothing is left is dropped; a photo of which none is left keeps its captions as
    they are, as then it is the student that is blind.
    """
    if not decisions:
        return []
    gains = eyes.gains(images, [[one.text for one in decision.kept] for decision in decisions])
    return [_adapted(one, iter(found)) for one, found in zip(decisions, gains, strict=True)]


def _adapted(decision: Decision, gains: Iterator[Sequence[float]]) -> Decision:
    changed = distinct(decision.with_candidates(lambda one: drop_unseen(one, next(gains))))
    return changed if changed.kept else decision


def drop_unseen(candidate: Candidate, gains: Sequence[float]) -> Candidate:
    """The candidate less what gains nothing; `gains` of its words as `Eyes.gains` gives them."""
    found = pieces(candidate.text)
    seen = [_gain(candidate.text, piece, gains) > SEEN for piece in found]
    pruned = prune(candidate.text, _backing(candidate.text, found, seen))
    if not pruned.gone:
        return candidate
    gone = f"the student does not see: {', '.join(pruned.gone)}"
    if not pruned.text:
        return replace(candidate, notes=(*candidate.notes, gone), dropped=NOTHING)
    return replace(candidate, text=pruned.text, notes=(*candidate.notes, gone))


def _backing(text: str, found: Sequence[Piece], seen: Sequence[bool]) -> Backing:
    """What the student sees of a text, as evidence for it."""

    def names(role: Role, kind: str, wanted: bool = True) -> frozenset[str]:
        chosen = (p for p, yes in zip(found, seen, strict=True) if p.role is role and yes is wanted)
        return frozenset(name for piece in chosen if (name := getattr(piece.unit, kind)))

    said = names(Role.ADJECTIVE, "attribute") | names(Role.PARTICIPLE, "verb")
    return Backing(
        objects=names(Role.NOUN, "noun"),
        attributes=frozenset(pair for pair in extract(text).attributes if pair[1] in said),
        verbs=names(Role.VERB, "verb") | names(Role.PARTICIPLE, "verb"),
        absent=names(Role.NOUN, "noun", wanted=False),
    )


def _gain(text: str, piece: Piece, gains: Sequence[float]) -> float:
    """What a piece of a text gains; infinite where the student was not asked."""
    first = len(normalize(text[: piece.start]).split())
    last = len(normalize(text[: piece.end]).split())
    some = gains[first:last]
    return sum(some) if some else float("inf")


def _by_word(gains: Sequence[float], spoken: Sequence[str]) -> list[float]:
    """Figures of pieces added up to figures of words, the end left out."""
    words: list[float] = []
    for gain, piece in zip(gains, spoken, strict=True):
        if piece == "<end>":
            break
        if piece.startswith("\u2581") or not words:
            words.append(0.0)
        words[-1] += gain
    return words


@torch.no_grad()
def _seen(student: StudentTeacher, images: Sequence[Image.Image]) -> Seen:
    model = student.students[0]
    size = model.dimensions.image_size
    pixels = to_pixels(np.stack([squash(image, size) for image in images]))
    seen: Seen = model.encoder(pixels.to(student.device))
    return seen._replace(tokens=seen.tokens.float())
