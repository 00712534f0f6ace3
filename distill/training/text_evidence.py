"""Captions without photos as training rows: with evidence such as the concept head would give.

The head misses words that captions have and finds others. Both are measured on photos: a text gets
the evidence of a photo whose captions share a word with it, and those of its own words that are
missing there as often as the head finds them (text-only training; Fei et al. 2023, MultiCapCLIP).
In a share of the texts a noun gives way to a word that captions rarely have, so that these are
learned, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nanocap.distill.data import tokenizer as pieces
from nanocap.distill.data.concepts import ConceptWords
from nanocap.distill.data.corpus import Corpus
from nanocap.measure.metrics.facts.entries import lexicon
from nanocap.student.controls import LENGTH, PREFIX, QUALITY
from nanocap.student.evidence import NO_PHOTO, Told

RARE = 30  # texts: a word that fewer have is put in the place of others
SURE = (-0.7, 0.0)  # log probabilities of a word that was put in
NOTHING: Mapping[int, float] = {}
VOWELS = tuple("aeiou")
LENGTH_TOLD = 0.5  # share of rows that are told their length


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


@dataclass(frozen=True)
class Draft:
    """A text, and concepts with log probabilities that its decoder is told, the likeliest first."""

    text: str
    evidence: dict[int, float]


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

    def draw(self, random: np.random.Generator) -> Draft:
        """A text, in the stage's share of texts with a noun that gave way to a rare one."""
        text = self._texts[int(random.integers(len(self._texts)))]
        if random.random() < self._swapped:
            return self._swapped_in(text, random) or self._as_it_is(text, random)
        return self._as_it_is(text, random)

    def renamed(self, photo: int, random: np.random.Generator) -> Draft | None:
        """A caption of a photo in which a noun gave way; None where none can.

        Beside the photo it teaches that evidence counts for more than how things look.
        """
        captions = self._corpus.rows[photo].captions
        return self._swapped_in(captions[int(random.integers(len(captions)))], random)

    def rows(
        self, texts: int, renamed: int, photos: Sequence[int], random: np.random.Generator
    ) -> tuple[list[list[int]], Told]:
        """Rows `[quality, length, pieces...]`, and what their decoder is told.

        Args:
            texts: so many texts without photos.
            renamed: so many captions of `photos` (the batch), at most.
        """
        drafts, places = [self.draw(random) for _ in range(texts)], [NO_PHOTO] * texts
        for place in random.permutation(len(photos))[:renamed].tolist():
            draft = self.renamed(photos[place], random)
            if draft is not None:
                drafts.append(draft)
                places.append(place)
        encoded = pieces.encode(
            self._corpus.tokenizer, [draft.text for draft in drafts], self._longest
        )
        rows = []
        for draft, ids in zip(drafts, encoded, strict=True):
            length = pieces.length_of(draft.text) if random.random() < LENGTH_TOLD else "any"
            rows.append([QUALITY["high"], LENGTH[length], *ids])
        evidence = [[self._pieces[concept] for concept in draft.evidence] for draft in drafts]
        certainty = [[*draft.evidence.values()] for draft in drafts]
        return rows, Told(torch.tensor(evidence), torch.tensor(certainty), torch.tensor(places))

    def _as_it_is(self, text: str, random: np.random.Generator) -> Draft:
        return Draft(text, self._evidence([*self._concepts.mentioned(text)], random))

    def _evidence(
        self,
        said: Sequence[int],
        random: np.random.Generator,
        sure: Mapping[int, float] = NOTHING,
        gone: int | None = None,
    ) -> dict[int, float]:
        """Concepts and their log probabilities, the likeliest first.

        Args:
            said: concepts of the text.
            sure: others that are told in any case. gone: one that is not.
        """
        known = [c for c in said if c in self._sharing]
        if known:
            near = self._sharing[known[int(random.integers(len(known)))]]
            place = near[int(random.integers(len(near)))]
        else:
            place = int(random.integers(len(self._found.photos)))
        concepts, certainty = self._found.concepts[place], self._found.certainty[place]
        evidence = dict(zip(concepts.tolist(), certainty.tolist(), strict=True))
        for concept in said:
            if concept not in evidence and random.random() < self.rates[concept]:
                evidence[concept] = float(self._sure[int(random.integers(len(self._sure)))])
        evidence |= sure
        if gone is not None:
            evidence.pop(gone, None)
        while len(evidence) < len(concepts):  # something that is found elsewhere
            other = self._found.concepts[int(random.integers(len(self._found.photos)))]
            evidence.setdefault(int(random.choice(other)), min(evidence.values()))
        ordered = sorted(evidence, key=evidence.__getitem__, reverse=True)[: len(concepts)]
        return {concept: evidence[concept] for concept in ordered}

    def _swapped_in(self, text: str, random: np.random.Generator) -> Draft | None:
        """The text with one of its nouns, in the singular, replaced by a rare one of its kind."""
        words, said = text.split(), self._concepts.mentioned(text)
        whole = [c for c, place in said.items() if words[place] == self._concepts.words[c]]
        if not whole:
            return None
        old = whole[int(random.integers(len(whole)))]
        near = self._rare[_kind(self._concepts, old)]
        if not near:
            return None
        new, place = near[int(random.integers(len(near)))], said[old]
        words[place] = self._concepts.words[new]
        if place and words[place - 1] in ("a", "an"):
            words[place - 1] = "an" if words[place].startswith(VOWELS) else "a"
        sure = {new: float(random.uniform(*SURE))}
        return Draft(" ".join(words), self._evidence([*said], random, sure, gone=old))


KINDS = ("animal", "food", "vehicle", "clothing", "person", "building", "plant")
CLASSES = {"animal": range(398), "food": range(924, 970)}  # of ImageNet


def _kind(concepts: ConceptWords, number: int) -> str:
    """A rough kind of thing, for which another of the same kind makes sense."""
    for kind, classes in CLASSES.items():
        if concepts.classes[number] and concepts.classes[number][0] in classes:
            return kind
    objects = lexicon().objects
    name = objects.names.get(concepts.words[number], "")
    kinds = objects.kinds.get(name, frozenset())
    return next((kind for kind in KINDS if kind in kinds), "thing")


def _by_kind(concepts: ConceptWords, numbers: NDArray[np.int64]) -> dict[str, list[int]]:
    kinds: dict[str, list[int]] = defaultdict(list)
    for number in numbers.tolist():
        kinds[_kind(concepts, number)].append(number)
    return kinds
