"""Kinds of training stages: what a step's rows are and what each of them weighs.

To add a kind, write a class with `target` and register it in `STAGES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nanocap.distill.data.batches import Captions, CaptionTable, Schedule, pack
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.recipes.recipe import Stage
from nanocap.distill.teachers.rollout import PROMPT, roll_out, to_texts
from nanocap.distill.teachers.similarity import ImageTextScorer
from nanocap.distill.training.losses import target_count
from nanocap.distill.training.rewards import (
    CiderReward,
    RepetitionReward,
    RetrievalReward,
    Reward,
    TruthReward,
    WornReward,
)
from nanocap.student import Student
from nanocap.student.controls import PREFIX, QUALITY


@dataclass(frozen=True)
class Target:
    """Rows of one step on one process, and what they weigh in the loss."""

    captions: Captions
    advantage: Tensor  # [rows]
    smoothing: float
    count: int  # target tokens that the loss is divided by
    metrics: dict[str, float]

    def and_rows(self, rows: Sequence[Sequence[int]], photos: int) -> Target:
        """With rows of texts, as if each were of a photo behind the others."""
        image = [*self.captions.image.tolist(), *range(photos, photos + len(rows))]
        captions = pack(_rows(self.captions) + list(rows), image)
        advantage = torch.cat([self.advantage, torch.ones(len(rows))])
        return replace(self, captions=captions, advantage=advantage, count=target_count(captions))


@dataclass(frozen=True)
class Context:
    """What a kind of stage may use."""

    stage: Stage
    corpus: Corpus
    table: CaptionTable
    schedule: Schedule
    student: Student
    scorer: ImageTextScorer | None = None


class StageKind(Protocol):
    """Turns the photos of a step into rows with weights."""

    def __init__(self, context: Context): ...

    def target(
        self, step: int, photos: Sequence[int], places: Sequence[int], inputs: Tensor, maps: bool
    ) -> Target:
        """Rows for the photos at these places of the step's global batch."""


class Supervised:
    """Cross-entropy on the captions that people (or teachers) wrote."""

    def __init__(self, context: Context):
        self.context = context

    def target(
        self, step: int, photos: Sequence[int], places: Sequence[int], inputs: Tensor, maps: bool
    ) -> Target:
        captions = _references(self.context, step, photos, places)
        weight = torch.ones(len(captions.image))
        smoothing = self.context.stage.label_smoothing
        return Target(captions, weight, smoothing, target_count(captions), {})


class NamingAlone:
    """No captions: the concept head learns, and what lies before it (`Stage.naming`)."""

    def __init__(self, context: Context): ...

    def target(
        self, step: int, photos: Sequence[int], places: Sequence[int], inputs: Tensor, maps: bool
    ) -> Target:
        nothing = torch.zeros(0, PREFIX, dtype=torch.int64)
        captions = Captions(nothing, nothing, torch.zeros(0, dtype=torch.int64))
        return Target(captions, torch.ones(0), 0.0, 1, {})


class SelfCritical:
    """REINFORCE on CIDEr-D; the baseline of a sample is the mean of its photo's other samples.

    Rennie et al., "Self-critical sequence training" (2017), with the baseline of Luo, "A better
    variant of self-critical sequence training" (2020). A share of cross-entropy stays in, because
    without it the captions become few and generic. Photos with a single caption, or a noisy one,
    reward what is common: leave their sources out of `rewarded`, and they stay supervised. Where
    the stage gives retrieval a weight, that reward is added.
    """

    def __init__(self, context: Context):
        self.context = context
        self.rewards: list[tuple[Reward, float]] = [(CiderReward(context.corpus), 1.0)]
        if context.stage.retrieval:
            assert context.scorer is not None
            found = RetrievalReward(context.corpus, context.scorer)
            self.rewards.append((found, context.stage.retrieval))
        if context.stage.repetition:
            self.rewards.append((RepetitionReward(context.corpus), context.stage.repetition))
        if context.stage.truth:
            self.rewards.append((TruthReward(context.corpus), context.stage.truth))
        if context.stage.worn:
            self.rewards.append((WornReward(context.corpus), context.stage.worn))

    def target(
        self, step: int, photos: Sequence[int], places: Sequence[int], inputs: Tensor, maps: bool
    ) -> Target:
        context, count = self.context, self.context.stage.samples
        rewarded = [i for i, photo in enumerate(photos) if self._rewards(photo)]
        samples = self._samples(inputs[rewarded], maps) if rewarded else []
        texts = to_texts(context.corpus.tokenizer, samples)
        about = [photos[rewarded[i // count]] for i in range(len(texts))]
        scores = np.zeros(len(texts))
        metrics: dict[str, float] = {}
        for reward, weight in self.rewards if texts else ():
            found = reward.score(texts, about)
            metrics[reward.name] = float(found.mean())
            scores += weight * found
        rewards = torch.from_numpy(scores).float().reshape(-1, count)
        others = (rewards.sum(1, keepdim=True) - rewards) / max(1, count - 1)
        advantage = (rewards - others).flatten()
        drawn = [[*PROMPT, *row] for row in samples]
        image = [rewarded[i // count] for i in range(len(drawn))]
        written = _references(context, step, photos, places)
        sampled = target_count(pack(drawn, image)) if drawn else target_count(written)
        share = context.stage.cross_entropy * sampled / max(1, target_count(written))
        both = pack(drawn + _rows(written), [*image, *written.image.tolist()])
        weights = torch.cat([advantage, torch.full((len(written.image),), share)])
        if drawn:
            metrics["words"] = sum(len(text.split()) for text in texts) / len(texts)
        return Target(both, weights, 0.0, sampled, metrics)

    def _rewards(self, photo: int) -> bool:
        """Whether its captions are a measure to draw towards; other photos stay supervised."""
        if self.context.table.quality[photo] != QUALITY["high"]:
            return False
        sources = self.context.stage.rewarded
        return not sources or self.context.corpus.rows[photo].source in sources

    @torch.no_grad()
    def _samples(self, inputs: Tensor, maps: bool) -> list[list[int]]:
        encoder = self.context.student.encoder
        seen = encoder.from_map(inputs) if maps else encoder(inputs)
        stage, student = self.context.stage, self.context.student
        return roll_out(student, seen, stage.samples, sample=True, temperature=stage.temperature)


STAGES: dict[str, type[StageKind]] = {
    "naming": NamingAlone,
    "supervised": Supervised,
    "self-critical": SelfCritical,
}


def _references(
    context: Context, step: int, photos: Sequence[int], places: Sequence[int]
) -> Captions:
    """Captions of each photo, drawn by randomness of the photo's own place in the global batch."""
    rows: list[list[int]] = []
    image: list[int] = []
    for index, (photo, place) in enumerate(zip(photos, places, strict=True)):
        random = context.schedule.random(step, place, 1)
        drawn = context.table.draw(photo, random, context.stage.captions)
        rows.extend(drawn)
        image.extend([index] * len(drawn))
    return pack(rows, image)


def _rows(captions: Captions) -> list[list[int]]:
    """Back from padded inputs and targets to rows."""
    whole = torch.cat([captions.tokens, captions.targets[:, -1:]], dim=1)
    return [[token for token in row if token] for row in whole.tolist()]
