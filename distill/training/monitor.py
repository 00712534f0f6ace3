"""A look at the run while it goes: the loss on photos set aside, and the CIDEr of their captions.

CIDEr of 200 captions moves by several points without a reason; the loss tells overfitting sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
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

MONITORED = 200  # photos of a source at most that are captioned when a stage looks at itself
CHUNK = 50  # photos that are captioned at once


class Monitor:
    """Scores greedy captions of photos that were set aside, to see a run go wrong.

    Args:
        sources: that the photos are of.
    """

    def __init__(self, corpus: Corpus, sources: Sequence[str], dimensions: Dimensions):
        self.corpus, self.student, self.sources = corpus, Student(dimensions), sources
        self.rows = [row for source in sources for row in corpus.aside(source)[:MONITORED]]
        self.references = [corpus.rows[row].captions for row in self.rows]
        ids = corpus.encoded(dimensions.max_tokens) if self.rows else []
        self.written = [[[*PROMPT, *caption] for caption in ids[row]] for row in self.rows]

    @torch.no_grad()
    def look(self, average: dict[str, Tensor], facts: bool = False) -> dict[str, float]:
        """CIDEr (times 100, as the field prints it), the share of distinct captions, the loss.

        Of several sources CIDEr is the mean over them, and each stands there as well.
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
        ciders = self._ciders(texts)
        looked = {
            "cider": round(sum(ciders.values()) / len(ciders), 2),
            **({f"cider {name}": one for name, one in ciders.items()} if len(ciders) > 1 else {}),
            "distinct": round(len(set(texts)) / len(texts), 3),
            "aside_loss": round(loss / pieces, 4),
        }
        if facts:
            counts = map(fact_counts, texts, self.references)
            objects = sum(counts, PhotoCounts()).objects
            looked["faithful"] = round(objects.rates().precision, 4)
        return looked

    def _ciders(self, texts: Sequence[str]) -> dict[str, float]:
        """By source."""
        of_source = [self.corpus.rows[row].source for row in self.rows]
        found = {}
        for source in dict.fromkeys(of_source):
            places = [place for place, name in enumerate(of_source) if name == source]
            references = [self.references[place] for place in places]
            cider = Cider(references)
            said = [texts[place] for place in places]
            found[source] = round(100 * sum(map(cider.score, said, references)) / len(said), 2)
        return found


class Best:
    """The weights of the look at which captions were best so far, which a stage ends with.

    Args:
        kept: file of those weights.
    """

    def __init__(self, kept: Path):
        self.kept = kept

    def offer(self, cider: float, average: dict[str, Tensor]) -> None:
        """Keep these weights if no earlier ones were better."""
        if self.kept.exists():
            with safe_open(self.kept, framework="pt") as file:
                if float(file.metadata()["cider"]) > cider:
                    return
        _save(average, self.kept, {"cider": str(cider)})

    def restore(self, average: dict[str, Tensor]) -> None:
        """The best weights, in place."""
        _load(self.kept, average)


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
            _save(average, self.kept)
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
        _load(self.kept, average)


def _save(average: dict[str, Tensor], path: Path, header: dict[str, str] | None = None) -> None:
    with whole_file(path) as partial:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in average.items()}
        safetensors.torch.save_file(state, partial, header)


def _load(path: Path, average: dict[str, Tensor]) -> None:
    for name, tensor in safetensors.torch.load_file(path).items():
        average[name].copy_(tensor)
