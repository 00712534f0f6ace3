"""What the concept head learns: the words that people use for a photo, and what its trunk knew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.distill.data.augment import squash
from nanocap.distill.data.concepts import ConceptWords
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.feature_cache import Maps, Photos, normalize
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.training import pretrained_trunks
from nanocap.distill.training.text_evidence import Found
from nanocap.student import Student
from nanocap.student.evidence import ConceptHead, Concepts, Seen
from nanocap.student.trunk import Trunk
from nanocap.student.trunks import SEPARATOR

UNSAID = 0.3  # weight of a word that is missing where a photo has a single caption


class ImageNetTrunk(nn.Module):
    """The trunk as ImageNet left it, with its classifier: what training must not forget.

    Li and Hoiem, "Learning without forgetting" (2016).
    """

    def __init__(self, trunk: str, weights: str) -> None:
        super().__init__()
        self.trunk = Trunk(trunk.split(SEPARATOR)[0])
        state = pretrained_trunks.load(weights.split(SEPARATOR)[0])
        self.trunk.load_imagenet(state)
        self.weight = nn.Parameter(state["_fc.weight"])
        self.bias = nn.Parameter(state["_fc.bias"])
        self.requires_grad_(False)

    def pooled(self, inputs: Tensor, from_maps: bool) -> Tensor:
        """Means [B, TOP_CHANNELS] of the last map of pixels, or of what `lower` gives."""
        lower = inputs[:, : self.trunk.middle_channels] if from_maps else self.trunk.lower(inputs)
        means: Tensor = self.trunk.upper(lower).mean((2, 3))
        return means

    def classes(self, inputs: Tensor, from_maps: bool) -> Tensor:
        """Log probabilities [B, 1000]."""
        logits = F.linear(self.pooled(inputs, from_maps), self.weight, self.bias)
        return logits.float().log_softmax(1)


@dataclass(frozen=True)
class Naming:
    """The concept head's loss on a batch.

    Attributes:
        classes: log probabilities [B, 1000] that the trunk gave before it was trained further.
        said: [B, W], 1 where some caption has the word. counts: [B, W], what each entry weighs.
        weight: of the loss.
    """

    classes: Tensor
    said: Tensor
    counts: Tensor
    weight: float

    def __call__(self, seen: Seen) -> Tensor:
        """A mean over photos, in nats."""
        ours = seen.classes.float().log_softmax(1)
        kept = F.kl_div(ours, self.classes, reduction="batchmean", log_target=True)
        named = F.binary_cross_entropy_with_logits(
            seen.words.float(), self.said, self.counts, reduction="sum"
        )
        return self.weight * (kept + named / (WORDS_SCALE * len(self.said)))


FITTED = 2048  # photos that the classifier's factors are fitted to
LOOKED = 6000  # photos at most in which the head's findings are looked at
CHUNK = 64
WORDS_SCALE = 4.0  # the words' loss is a sum over hundreds: brought to the size of the others


class NamingTable:
    """Which words the captions of each photo have."""

    def __init__(self, corpus: Corpus, concepts: ConceptWords) -> None:
        self.said = np.zeros((len(corpus.rows), concepts.learned), np.float32)
        self.single = np.array([len(row.captions) == 1 for row in corpus.rows])
        for index, row in enumerate(corpus.rows):
            for caption in row.captions:
                found = [c for c in concepts.mentioned(caption) if c < concepts.learned]
                self.said[index, found] = 1

    def of(self, photos: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`said` and `counts` of `Naming`."""
        said = torch.from_numpy(self.said[list(photos)])
        single = torch.from_numpy(self.single[list(photos)]).unsqueeze(1)
        return said, torch.where(torch.logical_and(single, said == 0), UNSAID, 1.0)

    def rates(self, photos: Sequence[int]) -> NDArray[np.float32]:
        """Share of the photos whose captions have each word: [W]."""
        rates: NDArray[np.float32] = self.said[list(photos)].mean(0)
        return rates


class Names:
    """What the concept head learns, batch by batch."""

    def __init__(self, corpus: Corpus, recipe: Recipe, weight: float) -> None:
        assert corpus.concepts is not None
        self._table, self._weight = NamingTable(corpus, corpus.concepts), weight
        self._anchor = ImageNetTrunk(recipe.dimensions().trunk, recipe.imagenet)

    def to(self, device: torch.device) -> Names:
        """The same on another device."""
        self._anchor.to(device)
        return self

    @torch.no_grad()
    def of(self, photos: Sequence[int], inputs: Tensor, from_maps: bool) -> Naming:
        """The loss on these photos (rows of the corpus), of which the encoder gets `inputs`."""
        said, counts = (each.to(inputs.device) for each in self._table.of(photos))
        return Naming(self._anchor.classes(inputs, from_maps), said, counts, self._weight)


@torch.no_grad()
def found_head(student: Student, corpus: Corpus, imagenet: str) -> None:
    """Give a new concept head its words, and what it can know before it is trained.

    Args:
        imagenet: the trunk's weights; see `Recipe.imagenet`.
    """
    head, concepts = student.encoder.concepts, corpus.concepts
    assert isinstance(head, ConceptHead)
    assert concepts is not None
    head.define(Concepts(corpus.concept_pieces, concepts.classes))
    anchor = ImageNetTrunk(student.dimensions.trunk, imagenet)
    training = corpus.training()
    some = training[:: max(1, len(training) // FITTED)][:FITTED]
    pooled = []
    for first in range(0, len(some), CHUNK):
        images = (corpus.photo(photo) for photo in some[first : first + CHUNK])
        pixels = np.stack([squash(image, student.dimensions.image_size) for image in images])
        pooled.append(anchor.pooled(normalize(pixels), False))
    head.load_imagenet(anchor.weight, anchor.bias, torch.cat(pooled))
    rates = NamingTable(corpus, concepts).rates(training).clip(1e-4, 0.9)
    head.words.bias.copy_(torch.from_numpy(np.log(rates / (1 - rates))))
    head.words.weight.zero_()


@torch.no_grad()
def look_for_concepts(corpus: Corpus, student: Student, feed: Photos | Maps) -> Found:
    """What the concept head finds in photos to train on."""
    head = student.encoder.concepts
    assert isinstance(head, ConceptHead)
    training = corpus.training()
    some = training[:: -(-len(training) // LOOKED)]
    device = head.words.weight.device
    number = {piece: concept for concept, piece in enumerate(head.pieces.tolist())}
    concepts, certainty = [], []
    for first in range(0, len(some), CHUNK):
        inputs = feed.plain(some[first : first + CHUNK]).to(device)
        seen = student.encoder.from_map(inputs) if feed.from_maps else student.encoder(inputs)
        concepts += [[number[piece] for piece in row] for row in seen.evidence.tolist()]
        certainty.append(seen.certainty.float().cpu())
    return Found(some, np.array(concepts), torch.cat(certainty).numpy())
