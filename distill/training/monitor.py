"""A look at the run while it goes: the loss on photos set aside, and the CIDEr of their captions.

CIDEr of 200 captions moves by several points without a reason; the loss tells overfitting sooner.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from nanocap.distill.data.augment import squash
from nanocap.distill.data.batches import pack
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.feature_cache import normalize
from nanocap.distill.teachers.rollout import PROMPT, roll_out, to_texts
from nanocap.distill.training.losses import cross_entropy, target_count
from nanocap.errors import RecipeError
from nanocap.files.whole_file import whole_file
from nanocap.measure.metrics.cider import Cider
from nanocap.measure.metrics.facts import PhotoCounts, fact_counts
from nanocap.student import Dimensions, Student

MONITORED = 200  # photos at most that are captioned when a stage looks at itself
CHUNK = 50  # photos that are captioned at once


class Monitor:
    """Scores greedy captions of photos of `source` that were set aside, to see a run go wrong."""

    def __init__(self, corpus: Corpus, source: str, dimensions: Dimensions):
        self.corpus, self.student = corpus, Student(dimensions)
        self.rows = corpus.aside(source)[:MONITORED] if source else []
        self.references = [corpus.rows[row].captions for row in self.rows]
        self.cider = Cider(self.references)
        ids = corpus.encoded(dimensions.max_tokens) if self.rows else []
        self.written = [[[*PROMPT, *caption] for caption in ids[row]] for row in self.rows]

    @torch.no_grad()
    def look(self, average: dict[str, Tensor], facts: bool = False) -> dict[str, float]:
        """CIDEr (times 100, as the field prints it), the share of distinct captions, the loss.

        The loss is plain cross-entropy a piece, on all captions that people wrote. With `facts`,
        also `faithful`: the share of the captions' objects that people name; needs `nanocap[eval]`.
        """
        if not self.rows:
            return {}
        device = next(iter(average.values())).device
        self.student.load_state_dict(average)
        self.student.to(device).eval()
        size = self.student.dimensions.image_size
        texts: list[str] = []
        loss, pieces = 0.0, 0
        for first in range(0, len(self.rows), CHUNK):
            images = [self.corpus.photo(row) for row in self.rows[first : first + CHUNK]]
            pixels = normalize(np.stack([squash(image, size) for image in images])).to(device)
            seen = self.student.encoder(pixels)
            rows = roll_out(self.student, seen, 1, sample=False)
            texts += to_texts(self.corpus.tokenizer, rows)
            written = self.written[first : first + CHUNK]
            image = [i for i, several in enumerate(written) for _ in several]
            captions = pack([row for several in written for row in several], image).to(device)
            ones = torch.ones(len(image), device=device)
            loss += float(cross_entropy(self.student.decoder, seen, captions, 0.0, ones))
            pieces += target_count(captions)
        scores = map(self.cider.score, texts, self.references)
        looked = {
            "cider": round(100 * sum(scores) / len(texts), 2),
            "distinct": round(len(set(texts)) / len(texts), 3),
            "aside_loss": round(loss / pieces, 4),
        }
        if facts:
            counts = map(fact_counts, texts, self.references)
            objects = sum(counts, PhotoCounts()).objects
            looked["faithful"] = round(objects.rates().precision, 4)
        return looked


class Floor:
    """The floor of faithfulness under a stage that is rewarded for more than people's captions.

    Keeps the last weights whose captions were faithful enough, and says when to stop.

    Args:
        least: share of the objects in captions of the monitored photos that people name, too.
        kept: file of those weights.
    """

    def __init__(self, least: float, kept: Path):
        self.least, self.kept = least, kept

    def holds(self, faithful: float, average: dict[str, Tensor]) -> bool:
        """Whether the stage may go on; if so, these weights are what it falls back to.

        Raises RecipeError where it began below the floor.
        """
        if faithful >= self.least:
            with whole_file(self.kept) as partial:
                state = {name: x.detach().cpu().contiguous() for name, x in average.items()}
                safetensors.torch.save_file(state, partial)
            return True
        if not self.kept.exists():
            raise RecipeError(
                f"the stage begins with {faithful:.3f} of the objects being there, below its floor"
                f" of {self.least}: lower the floor, or start from a more faithful student"
            )
        click.echo(
            f"nanocap: stopped: {faithful:.3f} of the objects are there, below the floor of"
            f" {self.least}; the weights of the last look before are kept",
            err=True,
        )
        return False

    def restore(self, average: dict[str, Tensor]) -> None:
        """The weights of the last look that was above the floor, in place."""
        for name, tensor in safetensors.torch.load_file(self.kept).items():
            average[name].copy_(tensor)
