"""Words that a caption must not say, and words that it must: constrained decoding.

The search lives in the model's graphs; `bias` of its state is added to the log probabilities where
continuations are compared, and not to those that are reported. Before each step it is set anew for
each beam by what the beam has said. An avoided phrase can never be completed. While a required one
is missing a caption cannot end; its pieces grow cheaper with every step, so that it comes where it
fits, and when just enough places are left nothing else is possible (after Hokamp and Liu 2017,
arXiv 1704.07138, with one beam for all).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanocap.bundle.vocabulary import WORD_MARK, Vocabulary
from nanocap.errors import OptionError

BARRED = np.float32(-1e30)  # what the model takes for impossible
DEARER = 0.8  # nats a piece that a required word gains while it waits
GOES_ON = 2.0  # nats that the next word of a phrase gains on top of that
MOST, LONGEST = 64, 100  # phrases, and letters of one


@dataclass(frozen=True, eq=False)
class Phrase:
    """A phrase that is avoided or required.

    Attributes:
        text: with a space before it, as captions have it behind another word.
        least: the fewest pieces that spell it.
        pieces: by the place that is reached in `text`, the pieces that go on with it so that it is
            spelt with no more.
    """

    text: str
    least: int
    pieces: dict[int, list[int]]

    def is_inside(self, place: int) -> bool:
        """Whether a place is inside of a word, where nothing else can follow."""
        return 0 < place < len(self.text) and self.text[place] != " "


class Constraints:
    """What a caption must not and must say, for the pieces of one vocabulary.

    Args:
        longest: places of the longest caption, that of the end included.

    Raises:
        OptionError: a phrase is empty, both avoided and required, or cannot be spelt or fitted in.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        end: int,
        longest: int,
        avoid: Sequence[str] = (),
        require: Sequence[str] = (),
    ) -> None:
        self._pieces = [
            "" if i in vocabulary.special else piece.replace(WORD_MARK, " ").casefold()
            for i, piece in enumerate(vocabulary.pieces)
        ]
        self._begins = np.array([piece.startswith(" ") for piece in self._pieces])
        self._begins[end] = True  # a word ends where another begins or the caption ends
        self._end, self._longest = end, longest
        self._avoided = avoided = _phrases("avoid", avoid)
        self._required = [self._spelt(phrase) for phrase in _phrases("require", require)]
        for phrase in self._required:
            for other in avoided:
                if f"{other} " in f"{phrase.text} ":
                    raise OptionError(f"{other[1:]!r} cannot be both avoided and required")
        if sum(phrase.least for phrase in self._required) >= longest:
            raise OptionError("require: too many words for one caption")
        self._last = [  # of each piece that can complete an avoided phrase, what must stand before
            (number, phrase.removesuffix(piece))
            for phrase in avoided
            for number, piece in enumerate(self._pieces)
            if piece and phrase.endswith(piece)
        ]

    def bias(self, ids_BKT: npt.NDArray[np.int64], said: int) -> npt.NDArray[np.float32]:
        """The `bias` [B, K, V] for the next step.

        Args:
            ids_BKT: of the state.
            said: pieces that each beam has.
        """
        rows = [self._row(ids, said) for ids in ids_BKT.reshape(-1, ids_BKT.shape[2]).tolist()]
        return np.stack(rows).reshape(*ids_BKT.shape[:2], -1)

    def hold(self, ids: Sequence[int]) -> bool:
        """Whether a caption of these pieces obeys."""
        text = f"{self._text(ids)} "
        said = all(f"{phrase.text} " in text for phrase in self._required)
        return said and not any(f"{phrase} " in text for phrase in self._avoided)

    def _row(self, ids: list[int], said: int) -> npt.NDArray[np.float32]:
        row = np.zeros(len(self._pieces), np.float32)
        text = self._text(ids[:said])
        missing = [phrase for phrase in self._required if f"{phrase.text} " not in f"{text} "]
        places = [self._begun(phrase, text) for phrase in missing]
        forced = bool(missing) and self._ask_for(missing, places, said, row)
        if not forced and any(text.endswith(phrase.text) for phrase in self._required):
            row[~self._begins] = BARRED  # letters behind it would make it another word
        free = {
            number
            for phrase, place in zip(missing, places, strict=True)
            for number in phrase.pieces[place]
            if phrase.is_inside(place + len(self._pieces[number]))
        }
        for number, before in self._last:
            if number not in free and text.endswith(before):
                row[number] = BARRED
        return row

    def _ask_for(
        self, missing: list[Phrase], places: list[int], said: int, row: npt.NDArray[np.float32]
    ) -> bool:
        """Make pieces of missing phrases cheaper; or, if it must be, the only ones: then True."""
        row[self._end] = BARRED
        first = int(np.argmax(places))
        phrase, place = missing[first], places[first]
        # the end needs a place, too; what is begun may still be given up, and counts whole
        late = self._longest - said <= sum(one.least for one in missing) + 1
        if late or phrase.is_inside(place):
            row[:] = BARRED
            row[phrase.pieces[place]] = 0
            return True
        for phrase, place in zip(missing, places, strict=True):
            gain = DEARER * said + (GOES_ON if place else 0.0)
            pieces = phrase.pieces[place]
            row[pieces] = np.maximum(row[pieces], gain)
        return False

    def _begun(self, phrase: Phrase, text: str) -> int:
        """How much of a phrase a text ends with, so that it can be gone on with."""
        return max(place for place in phrase.pieces if text.endswith(phrase.text[:place]))

    def _spelt(self, text: str) -> Phrase:
        least = {len(text): 0}
        ways: dict[int, list[tuple[int, int]]] = {}  # of each place, pieces and where they lead
        for place in range(len(text) - 1, -1, -1):
            ways[place] = [
                (number, place + len(piece))
                for number, piece in enumerate(self._pieces)
                if piece and place + len(piece) in least and text.startswith(piece, place)
            ]
            if ways[place]:
                least[place] = 1 + min(least[after] for _, after in ways[place])
        if 0 not in least:
            raise OptionError(f"require: {text[1:]!r} has letters that this bundle cannot write")
        pieces: dict[int, list[int]] = {}
        reached = [0]
        for place in reached:
            if place < len(text) and place not in pieces:
                best = [way for way in ways[place] if least[way[1]] < least[place]]
                pieces[place] = [number for number, _ in best]
                reached.extend(after for _, after in best)
        return Phrase(text, least[0], pieces)

    def _text(self, ids: Sequence[int]) -> str:
        return "".join(self._pieces[i] for i in ids)


def _phrases(name: str, given: Sequence[str]) -> list[str]:
    """Phrases with a space before them, each once."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise OptionError(f"{name} must be a list of words, got {given!r}")
    if len(given) > MOST:
        raise OptionError(f"{name}: at most {MOST} words, got {len(given)}")
    phrases = []
    for one in given:
        if not isinstance(one, str) or not one.split():
            raise OptionError(f"{name}: {one!r} is no word")
        if len(one) > LONGEST:
            raise OptionError(f"{name}: a word of {len(one)} letters; {LONGEST} at most")
        phrases.append(f" {' '.join(one.split())}".casefold())
    return list(dict.fromkeys(phrases))
