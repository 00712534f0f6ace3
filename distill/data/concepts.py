"""The words of a concept head: those that captions have most, and those of ImageNet's classes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path

from nanocap.measure.metrics.facts.words import base_noun, word

LEAST = 12  # captions that must have a word for it to be learned


@dataclass(frozen=True)
class ConceptWords:
    """Words by number: the learned ones first.

    Attributes:
        learned: how many of them are learned from captions.
        classes: which of ImageNet's classes each of them names.
    """

    words: tuple[str, ...]
    learned: int
    classes: tuple[tuple[int, ...], ...]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> ConceptWords:
        """Read what `save` wrote."""
        table = json.loads(path.read_text(encoding="utf-8"))
        return cls(tuple(table["words"]), table["learned"], tuple(map(tuple, table["classes"])))

    @cached_property
    def number(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def of(self, token: str) -> int | None:
        """The number of the concept that a word of a caption names, in whatever form."""
        found = self.number.get(token)
        if found is None:
            base = base_noun(token)
            found = self.number.get(base) if base else None
        return found

    def mentioned(self, caption: str) -> dict[int, int]:
        """The concepts of a normalized caption, and the place of the word that names each."""
        found: dict[int, int] = {}
        for place, token in enumerate(caption.split()):
            number = _of(self, token)
            if number is not None:
                found.setdefault(number, place)
        return found


@cache
def _of(concepts: ConceptWords, token: str) -> int | None:
    return concepts.of(token)


def choose_concepts(captions: Iterable[str], learned: int) -> ConceptWords:
    """The `learned` nouns that most captions have, and all words of ImageNet's classes."""
    counts = Counter[str]()
    for caption in captions:
        # "rides" is more likely a verb than the plural of a noun
        nouns = (token for token in caption.split() if word(token).form == "base")
        counts.update({base for base in map(base_noun, nouns) if base is not None})
    common = [w for w, n in counts.most_common(learned) if n >= LEAST]
    named = imagenet_words()
    words = (*common, *(one for one in named if one not in set(common)))
    return ConceptWords(words, len(common), tuple(named.get(one, ()) for one in words))


@cache
def imagenet_words() -> dict[str, tuple[int, ...]]:
    """The words that people use for ImageNet's 1,000 classes, and which classes each stands for.

    Read from `imagenet_words.txt`: a word and its classes a line, ranges with a hyphen.
    """
    found: dict[str, tuple[int, ...]] = {}
    lines = resources.files(__package__).joinpath("imagenet_words.txt").read_text("utf-8")
    for line in lines.splitlines():
        word, *numbers = line.split()
        spans = (number.partition("-") for number in numbers)
        found[word] = tuple(n for a, _, b in spans for n in range(int(a), int(b or a) + 1))
    return found
