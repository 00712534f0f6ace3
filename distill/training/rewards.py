"""What a caption that was drawn is worth: to people's captions, among other photos, in itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nanocap.distill.data.corpus import Corpus
from nanocap.distill.teachers.similarity import ImageTextScorer
from nanocap.measure.metrics.cider import Cider
from nanocap.measure.metrics.facts import fact_counts
from nanocap.measure.metrics.phrases import phrases

Floats = NDArray[np.float64]

SAID_AGAIN = 0.02  # of the captions that have a word; people say no rarer one twice


class Reward(Protocol):
    """A number for each caption of a batch."""

    name: str

    def score(self, texts: Sequence[str], photos: Sequence[int]) -> Floats:
        """Of each text about the photo (a row of the corpus) at the same place: [texts]."""


class CiderReward:
    """CIDEr-D against the photo's own captions."""

    name = "reward"

    def __init__(self, corpus: Corpus):
        self._corpus = corpus
        self._cider = Cider([row.captions for row in corpus.rows if not row.aside])

    def score(self, texts: Sequence[str], photos: Sequence[int]) -> Floats:
        rows = self._corpus.rows
        pairs = zip(texts, photos, strict=True)
        return np.array([self._cider.score(text, rows[photo].captions) for text, photo in pairs])


class RetrievalReward:
    """The probability of finding the photo by its caption among the photos of the batch.

    Dessi et al., "Cross-domain image captioning with discriminative finetuning" (2023). Captions
    that fit any photo earn nothing. It needs a scorer that was trained for retrieval, and a floor
    (`Stage.floor`): without one the words that set photos apart soon are no longer true.
    """

    name = "retrieval"

    def __init__(self, corpus: Corpus, scorer: ImageTextScorer):
        self._corpus, self._scorer = corpus, scorer
        self._seen: dict[int, NDArray[np.float32]] = {}  # of the photos met so far

    def score(self, texts: Sequence[str], photos: Sequence[int]) -> Floats:
        batch = sorted(set(photos))
        new = [photo for photo in batch if photo not in self._seen]
        if new:
            vectors = self._scorer.embed_images([self._corpus.photo(photo) for photo in new])
            self._seen.update(zip(new, vectors, strict=True))
        read = self._scorer.embed_texts(texts)
        cosines = torch.from_numpy(read @ np.stack([self._seen[photo] for photo in batch]).T)
        scale, _ = self._scorer.scorer.scales()
        shares = (cosines * scale.detach().cpu()).softmax(1).double().numpy()
        return np.array([shares[i, batch.index(photo)] for i, photo in enumerate(photos)])


class TruthReward:
    """Minus the number of objects in a caption that none of the photo's captions names.

    CIDEr hardly minds one thing too many; who listens to a caption does (CHAIR; Rohrbach et al.,
    "Object hallucination in image captioning", 2018).
    """

    name = "truth"

    def __init__(self, corpus: Corpus):
        self._corpus = corpus

    def score(self, texts: Sequence[str], photos: Sequence[int]) -> Floats:
        rows = self._corpus.rows
        found = (
            fact_counts(t, rows[p].captions).objects for t, p in zip(texts, photos, strict=True)
        )
        return np.array([one.supported - one.mentioned for one in found])


class WornReward:
    """Minus how much more often a batch says the phrases of a caption than people do.

    Likelihood, beams and CIDEr all favour "on top of a". What people say is counted in all of their
    captions and in those of the batch's own photos, of which the larger share holds.
    """

    name = "worn"

    def __init__(self, corpus: Corpus):
        self._corpus = corpus
        self._people = _shares(
            caption for index in corpus.training() for caption in corpus.rows[index].captions
        )

    def score(self, texts: Sequence[str], photos: Sequence[int]) -> Floats:
        ours = _shares(texts)
        about = (self._corpus.rows[photo].captions for photo in sorted(set(photos)))
        here = _shares(caption for captions in about for caption in captions)
        excess = {
            phrase: max(0.0, share - max(self._people[phrase], here[phrase]))
            for phrase, share in ours.items()
        }
        return -np.array([sum(excess[phrase] for phrase in phrases(text)) for text in texts])


def _shares(captions: Iterable[str]) -> Counter[str]:
    """Which share of the captions has each phrase."""
    counts, total = Counter[str](), 0
    for caption in captions:
        counts.update(phrases(caption))
        total += 1
    return Counter({phrase: count / total for phrase, count in counts.items()})


class RepetitionReward:
    """Minus one for every word of a caption that it has said before, and people would not have.

    CIDEr-D hardly minds "a sink and a sink": one true half scores well. Which words may come twice
    ("a man in a red shirt and a man in a blue shirt") is counted in people's captions.
    """

    name = "repeats"

    def __init__(self, corpus: Corpus):
        there, again = Counter[str](), Counter[str]()
        for index in corpus.training():
            for caption in corpus.rows[index].captions:
                for word, count in Counter(caption.split()).items():
                    there[word] += 1
                    again[word] += count > 1
        self._free = {word for word, count in again.items() if count >= SAID_AGAIN * there[word]}

    def score(self, texts: Sequence[str], photos: Sequence[int]) -> Floats:
        said = ([word for word in text.split() if word not in self._free] for text in texts)
        return np.array([float(len(set(words)) - len(words)) for words in said])
