"""What is decided about a photo's captions: the record that the stages fill in, and its log."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from nanocap.distill.data.tokenizer import normalize

TEACHER, ORIGINAL, FUSED = "teacher", "original", "fused"
DIGITS = 4  # of a figure in the log
MOST_WORDS = 100  # a long caption of a long target has 60 to 70
MOST_CHARACTERS = 2000  # however few the words
TOO_LONG = f"no whole sentence within {MOST_WORDS} words"
SHOWN = 80  # characters of a refused text in the log


@dataclass(frozen=True)
class Candidate:
    """A caption that is considered for a photo. What is not known is None."""

    text: str
    origin: str = TEACHER  # `teacher`; `original`, the photo came with it; or `fused` of both
    teacher: str = ""  # who proposed it; of a fused one, whose sentence was filled in
    score: float | None = None  # what its teacher thinks of it, comparable within one teacher
    agreement: float | None = None  # mean CIDEr-D against all other proposals, from 0 to 10
    match: float | None = None  # the scorer's cosine with the photo
    line_up: float | None = None  # share of captions of other scenes that fit worse, by the scorer
    rank: float | None = None  # mean share of the others that it beats, over what is known of both
    support: float | None = None  # share of what it states that others confirm
    # Whether somebody who does not depend on its teacher (another teacher, the photo's own text)
    # names an object of it, or a detector sees one; None where nobody was there.
    confirmed: bool | None = None
    level: str = ""  # of quality, one of the recipe's
    notes: tuple[str, ...] = ()  # what was changed to make it
    dropped: str = ""  # why it is not kept; empty where it is

    @property
    def words(self) -> str:
        """The text without case and marks: candidates of the same words are one."""
        return normalize(self.text)

    def to_dict(self) -> dict[str, object]:
        """What is known of it, JSON-ready."""
        values = dataclasses.asdict(self)
        return {
            name: round(value, DIGITS) if isinstance(value, float) else value
            for name, value in values.items()
            if value not in (None, "", ())
        }


@dataclass(frozen=True)
class Sight:
    """What a detector found in a photo, by the names of the fact lexicon."""

    seen: frozenset[str] = frozenset()  # objects that it is sure of
    absent: frozenset[str] = frozenset()  # objects that it knows and does not even suspect


@dataclass(frozen=True)
class Decision:
    """All about one photo's captions. Each stage returns a copy with more filled in."""

    key: str
    originals: tuple[str, ...] = ()  # the texts that the photo came with
    candidates: tuple[Candidate, ...] = ()  # best first once ranked; those that were dropped stay
    sight: Sight | None = None  # None where no detector was asked
    level: str = ""  # of the row's captions; empty until they are graded
    left_out: str = ""  # why the photo has no row; empty where it has one

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """The candidates that nothing speaks against, in their order."""
        return tuple(one for one in self.candidates if not one.dropped)

    def with_candidates(self, change: Callable[[Candidate], Candidate]) -> Decision:
        """Every kept candidate changed by a function, the dropped ones as they are."""
        changed = (one if one.dropped else change(one) for one in self.candidates)
        return dataclasses.replace(self, candidates=tuple(changed))

    def to_json(self) -> str:
        """One line of the log."""
        row: dict[str, object] = {"key": self.key}
        if self.left_out:
            row["left_out"] = self.left_out
        else:
            row["level"] = self.level
        if self.originals:
            row["originals"] = [shortened(text, MOST_CHARACTERS) for text in self.originals]
        if self.sight is not None:
            row["seen"] = sorted(self.sight.seen)
        row["kept"] = [one.to_dict() for one in self.kept]
        row["dropped"] = [one.to_dict() for one in self.candidates if one.dropped]
        return json.dumps(row, ensure_ascii=False)

    def to_row(self) -> dict[str, object]:
        """What is written beside the photo: lists are of the kept captions, best first."""
        kept = self.kept
        return {
            "captions": [one.text for one in kept],
            "quality": self.level,
            "origins": [one.origin for one in kept],
            "teachers": [one.teacher for one in kept],
            "scores": [_rounded(one.score) for one in kept],
            "support": [_rounded(one.support) for one in kept],
            "match": [_rounded(one.match) for one in kept],
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def whole_sentences(text: str) -> str:
    """The text on one line, cut to the whole sentences that fit; empty where not one does.

    Half a sentence would teach half a sentence, so one that is too long is refused, not cut.
    """
    # cut before anything else: a text of megabytes costs no more than a long one; and JSON can
    # spell halves of characters, which nothing behind this could write
    begun = text[: 4 * MOST_CHARACTERS].encode("utf-8", "replace").decode()
    words = begun.split()
    plain = " ".join(words)
    if len(words) <= MOST_WORDS and len(plain) <= MOST_CHARACTERS and len(begun) == len(text):
        return plain
    fits = " ".join(words[:MOST_WORDS])[:MOST_CHARACTERS]
    ends = [found.end() for found in re.finditer(r"[.!?](?=\s)", fits + " ")]
    return fits[: ends[-1]] if ends else ""


def shortened(text: str, most: int = SHOWN) -> str:
    """The beginning of a text, for the log."""
    begun = " ".join(text[:most].encode("utf-8", "replace").decode().split())
    return begun if len(text) <= most else f"{begun}..."
