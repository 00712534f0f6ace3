"""A look at the run while it goes: captions of photos that were set aside, and their CIDEr."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nanocap.distill.augment import squash
from nanocap.distill.cider import Cider
from nanocap.distill.corpus import Corpus
from nanocap.distill.maps import normalize
from nanocap.distill.rollout import roll_out, to_texts
from nanocap.student import Dimensions, Student

MONITORED = 200  # photos at most that are captioned when a stage looks at itself
CHUNK = 50  # photos that are captioned at once


class Monitor:
    """Greedy captions of photos that were set aside, scored with CIDEr-D, to see a run go wrong.

    Args:
        source: whose photos; "" looks at none.
    """

    def __init__(self, corpus: Corpus, source: str, dimensions: Dimensions):
        self.corpus, self.student = corpus, Student(dimensions)
        self.rows = corpus.aside(source)[:MONITORED] if source else []
        self.references = [corpus.rows[row].captions for row in self.rows]
        self.cider = Cider(self.references)

    @torch.no_grad()
    def look(self, average: dict[str, Tensor]) -> dict[str, float]:
        """CIDEr (times 100, as the field prints it) and the share of distinct captions."""
        if not self.rows:
            return {}
        device = next(iter(average.values())).device
        self.student.load_state_dict(average)
        self.student.to(device).eval()
        size = self.student.dimensions.image_size
        texts: list[str] = []
        for first in range(0, len(self.rows), CHUNK):
            images = [self.corpus.photo(row) for row in self.rows[first : first + CHUNK]]
            pixels = normalize(np.stack([squash(image, size) for image in images])).to(device)
            rows = roll_out(self.student, self.student.encoder(pixels), 1, sample=False)
            texts += to_texts(self.corpus.tokenizer, rows)
        scores = map(self.cider.score, texts, self.references)
        cider = 100 * sum(scores) / len(texts)
        return {"cider": round(cider, 2), "distinct": round(len(set(texts)) / len(texts), 3)}
