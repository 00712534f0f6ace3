"""Evidence: the words that an encoder is surest of, which the decoder sees and can copy.

A captioner says what its captions said often. The trunk knows more: the classes that it was trained
to on ImageNet. The concept head keeps them, grouped by the word that people use for them, beside
words that are learned from captions as several labels at once (Fang et al. 2015, arXiv 1411.4952;
You et al. 2016, arXiv 1603.03925). The likeliest become memory tokens, and the decoder's copying
mechanism makes a word that captions never held as easy to say as any other (Gu et al. 2016,
CopyNet, arXiv 1603.06393; See et al. 2017).

Shapes: B photos, N visual tokens, E words of evidence, C concepts, V ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.student.dimensions import Dimensions

CLASSES = 1000  # of ImageNet
RANK = 256  # of their classifier, which would be an eighth of a student as one matrix
TOP_CHANNELS = 1280  # of the trunk's last map: the first of them, where several stand side by side
LEAST = 1e-4  # probability of a concept, so that its logarithm exists
WAYS = 4  # words that a class may count for: a terrier is a dog, too


class Seen(NamedTuple):
    """What an encoder makes of photos.

    Attributes:
        tokens: visual tokens [B, N, width].
        evidence: int64 [B, E], the piece of each word, the likeliest first.
        certainty: float [B, E], their log probabilities.
        classes: logits [B, CLASSES] of ImageNet's classes; words: logits [B, W] of the words that
            are learned. For training. All but `tokens` are empty without a concept head.
    """

    tokens: Tensor
    evidence: Tensor
    certainty: Tensor
    classes: Tensor
    words: Tensor

    def some(self, photos: Tensor) -> Seen:
        """Of some of the photos, int64 [B']."""
        return Seen(*(each[photos] for each in self))

    @classmethod
    def plain(cls, tokens_BNC: Tensor) -> Seen:
        """Visual tokens alone."""
        none = tokens_BNC[:, 0, :0]  # [B, 0]
        return cls(tokens_BNC, none.long(), none, none, none)


NO_PHOTO = -1


class Told(NamedTuple):
    """What the decoder is told of captions in training, whatever their photos show.

    Attributes:
        evidence, certainty: [T, E], as in `Seen`.
        photo: int64 [T], the photo of the batch that a caption has; `NO_PHOTO` for none.
    """

    evidence: Tensor
    certainty: Tensor
    photo: Tensor

    def to(self, device: torch.device) -> Told:
        """The same on another device."""
        return Told(*(each.to(device) for each in self))


@dataclass(frozen=True)
class Concepts:
    """Words that a concept head knows.

    Attributes:
        pieces: of each word in the vocabulary, the learned ones first.
        classes: for each of the words, which of ImageNet's classes it names.
    """

    pieces: Sequence[int]
    classes: Sequence[Sequence[int]]


class ConceptHead(nn.Module):
    """Which of C words a photo shows, from the trunk's pooled map and from the visual tokens."""

    pieces: Tensor
    meant: Tensor

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.evidence, self.concepts = dimensions.evidence, dimensions.concepts
        self.down = nn.Linear(TOP_CHANNELS, RANK)
        self.classes = nn.Linear(RANK, CLASSES)
        self.words = nn.Linear(dimensions.width + RANK, dimensions.words)
        self.register_buffer("pieces", torch.zeros(dimensions.concepts, dtype=torch.int64))
        # of each class the words that it counts for; behind the last word: none
        meant = torch.full((WAYS * CLASSES,), dimensions.concepts, dtype=torch.int64)
        self.register_buffer("meant", meant)

    def forward(self, pooled_BC: Tensor, tokens_BNC: Tensor) -> Seen:
        """See `Seen`.

        Args:
            pooled_BC: means [B, TOP_CHANNELS] of the trunk's last map.
        """
        pooled = self.down(pooled_BC)
        classes = self.classes(pooled)
        words = self.words(torch.cat([pooled, tokens_BNC.mean(1)], 1))
        concepts, certainty = self.likeliest(classes.float(), words.float())
        evidence = self.pieces.index_select(0, concepts.flatten()).reshape(concepts.shape)
        return Seen(tokens_BNC, evidence, certainty, classes, words)

    def probabilities(self, classes: Tensor, words: Tensor) -> Tensor:
        """Of every concept [B, C], from the logits of the classes and of the learned words."""
        shares = torch.softmax(classes, 1).repeat(1, WAYS)
        sums = shares.new_zeros(shares.shape[0], self.concepts + 1)
        sums = sums.scatter_add(1, self.meant.expand(shares.shape[0], -1), shares)
        named = sums[:, : self.concepts]
        learned = F.pad(torch.sigmoid(words), (0, self.concepts - words.shape[1]))
        return torch.maximum(named, learned)

    def likeliest(self, classes: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest concepts, int64 [B, E], and their log probabilities."""
        values, concepts = self.probabilities(classes, words).topk(self.evidence, 1)
        return concepts, values.clamp(LEAST, 1.0).log()

    @torch.no_grad()
    def define(self, concepts: Concepts) -> None:
        """Which words the concepts are."""
        self.pieces.copy_(torch.tensor(concepts.pieces))
        meant = torch.full((WAYS, CLASSES), self.concepts, dtype=torch.int64)
        used = [0] * CLASSES
        for concept, classes in enumerate(concepts.classes):
            for number in classes:
                if used[number] < WAYS:
                    meant[used[number], number] = concept
                    used[number] += 1
        self.meant.copy_(meant.flatten())

    @torch.no_grad()
    def load_imagenet(self, weight: Tensor, bias: Tensor, pooled_PC: Tensor) -> None:
        """Take over a classifier [CLASSES, TOP_CHANNELS], at the rank that the head has.

        Args:
            pooled_PC: of some photos: the factors are best where photos are.
        """
        moment = pooled_PC.T.double() @ pooled_PC.double() / len(pooled_PC)
        values, vectors = torch.linalg.eigh(moment)
        root = values.clamp_min(1e-6 * values.max()).sqrt()
        spread = (vectors * root) @ vectors.T
        left, singular, right = torch.linalg.svd(weight.double() @ spread, full_matrices=False)
        right = right[:RANK] @ (vectors / root) @ vectors.T
        scale = singular[:RANK].sqrt()
        self.down.weight.copy_(scale.unsqueeze(1) * right)
        self.down.bias.zero_()
        self.classes.weight.copy_(left[:, :RANK] * scale)
        self.classes.bias.copy_(bias)


def with_copies(logits: Tensor, copies: Tensor, evidence: Tensor, said: Tensor) -> Tensor:
    """Logits in which the words of the evidence may also be copied.

    Two ways to say a word share one distribution: its probability is the sum of being generated
    and of being copied. A word is copied once.

    Args:
        logits: [B, K, V], of generating.
        copies: [B, K, E], logits of copying.
        evidence: int64 [B, E].
        said: bool [B, K, E], whether the word stands in the caption already.
    """
    pieces = evidence.unsqueeze(1).expand_as(copies)
    gain = F.softplus(copies - logits.gather(2, pieces))
    return logits.scatter_add(2, pieces, torch.where(said, 0.0, gain))


def has_said(ids_BKT: Tensor, evidence: Tensor) -> Tensor:
    """Which of the words [B, E] stand among the pieces of each beam: bool [B, K, E]."""
    return (ids_BKT.unsqueeze(2) == evidence.unsqueeze(1).unsqueeze(3)).any(3)
