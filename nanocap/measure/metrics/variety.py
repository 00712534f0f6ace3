"""How varied the captions of a set are: a captioner that says little is right easily."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nanocap.measure.metrics.measures import Measure, SetMeasure, mean_measure

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
N_GRAMS = (1, 2, 3)


def words(text: str) -> list[str]:
    """Lower-case words, without punctuation."""
    return WORD.findall(text.lower())


def variety_measures(captions: Sequence[str], seen: Collection[str] | None = None) -> list[Measure]:
    """Distinct captions, distinct-n, vocabulary, repetition, length, share seen in training.

    Args:
        captions: one a photo.
        seen: captions of the training data; None where nobody gave them.
    """
    texts = tuple(" ".join(words(text)) for text in captions)
    measures: list[Measure] = [
        SetMeasure("distinct", "distinct captions", texts, distinct_captions),
        SetMeasure("vocabulary", "vocabulary used", texts, vocabulary),
    ]
    measures += [
        SetMeasure(f"distinct_{n}", f"distinct-{n} (%)", texts, DistinctN(n)) for n in N_GRAMS
    ]
    lengths = [len(text.split()) for text in texts]
    measures.append(mean_measure("words", "words a caption", lengths, better=0))
    repeats = [float(repeats_itself(text)) for text in texts]
    measures.append(mean_measure("repetition", "repeats itself (%)", repeats, 100, better=-1))
    if seen is not None:
        known = {" ".join(words(text)) for text in seen}
        verbatim = [float(text in known) for text in texts]
        measures.append(mean_measure("seen", "seen in training (%)", verbatim, 100, better=-1))
    return measures


def distinct_captions(texts: Sequence[str]) -> float:
    """Different captions."""
    return float(len(set(texts)))


def vocabulary(texts: Sequence[str]) -> float:
    """Different words."""
    return float(len({word for text in texts for word in text.split()}))


@dataclass(frozen=True)
class DistinctN:
    """Different n-grams as a percentage of all (Li et al., 2016, on diversity of dialogue)."""

    n: int

    def __call__(self, texts: Sequence[str]) -> float:
        found = [gram for text in texts for gram in n_grams(text.split(), self.n)]
        return 100 * len(set(found)) / max(1, len(found))


def n_grams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of `n` tokens."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def repeats_itself(text: str) -> bool:
    """Whether a pair of words stands twice in the caption, or a word twice in a row."""
    tokens = text.split()
    pairs = n_grams(tokens, 2)
    return len(set(pairs)) < len(pairs) or any(first == second for first, second in pairs)
