"""A look at the run while it goes: does a photo set aside find its caption among a hundred?"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanocap.distill.data.augment import squash
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.feature_cache import normalize
from nanocap.distill.data.scorer_texts import pad
from nanocap.scorer import Scorer, ScorerDimensions

MONITORED = 200  # photos at most
AMONG = 100  # captions that a photo chooses from: one of its own, the others of other photos
CHUNK = 50  # photos that are looked at together


class RetrievalMonitor:
    """Recall at 1 of photos that were set aside.

    Args:
        ids: pieces of every caption of every photo of the corpus.
        source: whose photos; "" looks at none.
    """

    def __init__(
        self, corpus: Corpus, ids: list[list[list[int]]], source: str, dimensions: ScorerDimensions
    ):
        self.corpus, self.scorer = corpus, Scorer(dimensions)
        self.rows = corpus.aside(source)[:MONITORED] if source else []
        self.texts = [caption for row in self.rows for caption in ids[row]]
        counts = np.array([len(ids[row]) for row in self.rows], np.int64)
        self.owner = np.repeat(np.arange(len(self.rows)), counts)

    @torch.no_grad()
    def look(self, average: dict[str, Tensor]) -> dict[str, float]:
        """`recall` by whole embeddings: the share of captions that beat those of 99 others."""
        if len(self.rows) < 2:
            return {}
        device = next(iter(average.values())).device
        self.scorer.load_state_dict(average)
        self.scorer.to(device).eval()
        size = self.scorer.dimensions.student.image_size
        seen = []
        for first in range(0, len(self.rows), CHUNK):
            images = [self.corpus.photo(row) for row in self.rows[first : first + CHUNK]]
            pixels = normalize(np.stack([squash(image, size) for image in images]))
            seen.append(self.scorer.image(pixels.to(device)).whole)
        tokens, mask = (tensor.to(device) for tensor in pad(self.texts))
        similarity = torch.cat(seen) @ self.scorer.text(tokens, mask).whole.T
        return {"recall": round(recall_at_one(similarity.cpu().numpy(), self.owner), 4)}


def recall_at_one(similarity: NDArray[np.float32], owner: NDArray[np.int64]) -> float:
    """How often a photo's caption scores above one caption each of (at most) 99 other photos.

    A tie is a miss, so that a scorer that tells nothing apart gets zero. The others are drawn by a
    fixed seed.

    Args:
        similarity: [photos, texts].
        owner: [texts], the photo that each text was written about.
    """
    random = np.random.default_rng(0)
    photos = len(similarity)
    texts_of = [np.flatnonzero(owner == photo) for photo in range(photos)]
    hits = []
    for text, photo in enumerate(owner):
        others = np.delete(np.arange(photos), photo)
        chosen = random.permutation(others)[: AMONG - 1]
        rivals = [random.choice(texts_of[other]) for other in chosen]
        hits.append(similarity[photo, text] > similarity[photo, rivals].max())
    return float(np.mean(hits))
