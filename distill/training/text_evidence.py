"""Captions without photos as training rows: with evidence such as the concept head would give.

The head misses words that captions have and finds others. Both are measured on photos: a text gets
the evidence of a photo whose captions share a word with it, and those of its own words that are
missing there as often as the head finds them (text-only training; Fei et al. 2023, MultiCapCLIP).
In a share of the texts a noun gives way to a word that captions rarely have, so that these are
learned, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanocap.distill.data import tokenizer as pieces
from nanocap.distill.data.concepts import ConceptWords
from nanocap.distill.data.corpus import Corpus
from nanocap.measure.metrics.facts.entries import lexicon
from nanocap.student.controls import LENGTH, PREFIX, QUALITY

RARE = 30  # texts: a word that fewer have is put in the place of others
SURE = (-0.7, 0.0)  # log probabilities of a word that was put in
VOWELS = tuple("aeiou")


@dataclass(frozen=True)
class Found:
    """What the concept head finds in photos: concepts [P, E], the likeliest first.

    Attributes:
        photos: rows of the corpus.
        certainty: log probabilities [P, E].
    """

    photos: Sequence[int]
    concepts: NDArray[np.int64]
    certainty: NDArray[np.float32]


class TextEvidence:
    """Draws rows of texts with evidence, by randomness that is given."""

    def __init__(self, corpus: Corpus, found: Found, max_tokens: int, swapped: float) -> None:
        concepts = corpus.concepts
        assert concepts is not None
        self._concepts, self._found, self._swapped = concepts, found, swapped
        self._corpus, self._longest = corpus, max_tokens - PREFIX
        self._texts = corpus.texts
        self._pieces = corpus.concept_pieces
        self._sharing: dict[int, list[int]] = defaultdict(list)
        hits = np.zeros((2, len(concepts.words)))  # mentioned, found
        sure: list[float] = []
        for place, photo in enumerate(found.photos):
            there = dict(
                zip(found.concepts[place].tolist(), found.certainty[place].tolist(), strict=True)
            )
            said = {c for t in corpus.rows[photo].captions for c in concepts.mentioned(t)}
            for concept in said:
                self._sharing[concept].append(place)
                hits[0, concept] += 1
                if concept in there:
                    hits[1, concept] += 1
                    sure.append(there[concept])
        overall = hits[1].sum() / max(1.0, hits[0].sum())
        self.rates = (hits[1] + 10 * overall) / (hits[0] + 10)  # of being found, where it is said
        self._sure = np.array(sure or [-1.0])
        seen = np.zeros(len(concepts.words), np.int64)
        for text in self._texts:
            seen[list(concepts.mentioned(text))] += 1
        self._rare = _by_kind(concepts, np.flatnonzero(seen < RARE))

    def draw(self, random: np.random.Generator) -> tuple[list[int], list[int], list[float]]:
        """A row `[quality, length, pieces...]`, its evidence as pieces, their log probabilities."""
        text = self._texts[int(random.integers(len(self._texts)))]
        said = self._concepts.mentioned(text)
        put = None
        if said and random.random() < self._swapped:
            text, said, put = self._swap(text, said, random)
        evidence = self._evidence(said, put, random)
        [ids] = pieces.encode(self._corpus.tokenizer, [text], self._longest)
        length = "any" if random.random() < 0.5 else pieces.length_of(text)
        row = [QUALITY["high"], LENGTH[length], *ids]
        return row, [self._pieces[c] for c in evidence], [*evidence.values()]

    def rows(
        self, count: int, random: np.random.Generator
    ) -> tuple[list[list[int]], Tensor, Tensor]:
        """So many rows, and `told` of `CaptionLoss`."""
        drawn = [self.draw(random) for _ in range(count)]
        rows, evidence, certainty = zip(*drawn, strict=True)
        return list(rows), torch.tensor(evidence), torch.tensor(certainty)

    def _evidence(
        self, said: dict[int, int], put: int | None, random: np.random.Generator
    ) -> dict[int, float]:
        """Concepts and their log probabilities, the likeliest first."""
        known = [c for c in said if c in self._sharing]
        if known:
            near = self._sharing[known[int(random.integers(len(known)))]]
            place = near[int(random.integers(len(near)))]
        else:
            place = int(random.integers(len(self._found.photos)))
        count = self._found.concepts.shape[1]
        given = zip(self._found.concepts[place], self._found.certainty[place], strict=True)
        evidence = {int(c): float(p) for c, p in given}
        for concept in said:
            if concept not in evidence and random.random() < self.rates[concept]:
                evidence[concept] = float(self._sure[int(random.integers(len(self._sure)))])
        if put is not None:
            evidence[put] = float(random.uniform(*SURE))
        ordered = sorted(evidence, key=evidence.__getitem__, reverse=True)[:count]
        return {concept: evidence[concept] for concept in ordered}

    def _swap(
        self, text: str, said: dict[int, int], random: np.random.Generator
    ) -> tuple[str, dict[int, int], int | None]:
        """The text with one of its nouns, in the singular, replaced by a rare one of its kind."""
        words = text.split()
        whole = [c for c, place in said.items() if words[place] == self._concepts.words[c]]
        if not whole:
            return text, said, None
        old = whole[int(random.integers(len(whole)))]
        near = self._rare.get(_kind(self._concepts.words[old]), ())
        if not len(near):
            return text, said, None
        new, place = int(near[int(random.integers(len(near)))]), said[old]
        words[place] = self._concepts.words[new]
        if place and words[place - 1] in ("a", "an"):
            words[place - 1] = "an" if words[place].startswith(VOWELS) else "a"
        rest = {concept: at for concept, at in said.items() if concept != old}
        return " ".join(words), {**rest, new: place}, new


KINDS = ("animal", "food", "vehicle", "clothing", "person", "building", "plant")


def _kind(word: str) -> str:
    """A rough kind of thing, for which another of the same kind makes sense."""
    objects = lexicon().objects
    kinds = objects.kinds.get(objects.names.get(word, ""), frozenset())
    return next((kind for kind in KINDS if kind in kinds), "thing")


def _by_kind(concepts: ConceptWords, numbers: NDArray[np.int64]) -> dict[str, list[int]]:
    kinds: dict[str, list[int]] = defaultdict(list)
    for number in numbers:
        kinds[_kind(concepts.words[number])].append(int(number))
    return kinds
