"""A scorer's recipe: one TOML file, with the `[data]` of a captioner's recipe."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanocap.distill.recipes.recipe import Data, Recipe, Stage, check
from nanocap.distill.recipes.records import build, chosen, read_toml
from nanocap.errors import NanocapError, RecipeError
from nanocap.scorer import ScorerDimensions
from nanocap.student import Dimensions

GROUPS = ("heads", "text", "encoder", "upper")  # of parameters; the lower trunk always rests
SHARES = ("softening", "hidden", "dropout")


@dataclass(frozen=True)
class Training:
    """How a scorer is trained."""

    steps: int
    train: tuple[str, ...] = GROUPS
    batch: int = 64  # photos a step; each meets the texts of all others
    captions: int = 2  # at most so many texts of a photo in a step
    lr: float = 1e-3
    trunk_lr: float = 1e-4  # for "encoder" and "upper", which a student has trained already
    warmup: int = 100
    final_lr: float = 0.02  # share of lr that the cosine ends at
    weight_decay: float = 0.1
    dropout: float = 0.1  # in the text tower
    views: int = 3  # augmented views whose maps are cached
    clip: float = 1.0
    ema: float = 0.998
    softening: float = 0.2  # mass of the negatives in the last step; it grows from zero
    likeness: float = 5.0  # how much more of it goes to texts like the photo's own; 0: evenly
    matching: float = 0.5  # weight of the token-level term
    masked: float = 0.2  # weight of the masked-language term
    hidden: float = 0.2  # share of a text's pieces that it hides
    checkpoint: int = 200  # steps between checkpoints
    evaluate: int = 400  # steps between looks at the photos set aside


@dataclass(frozen=True)
class ScorerRecipe:
    """A whole run."""

    name: str
    start: str  # the finished student that the trunk is shared with, beside the recipe
    data: Data
    training: Training
    seed: int = 0
    monitor: str = ""  # source whose `aside` photos are retrieved while training
    scorer: Mapping[str, Any] = field(default_factory=dict)  # ScorerDimensions that differ

    def dimensions(self, student: Dimensions) -> ScorerDimensions:
        """The scorer's dimensions over a student's encoder.

        Raises:
            RecipeError: `[scorer]` has an unknown key or a value that cannot be.
        """
        try:
            return ScorerDimensions.from_dict({**self.scorer, "student": student.to_dict()})
        except NanocapError as error:
            raise RecipeError(f"[scorer]: {error}") from error

    def captioner(self) -> Recipe:
        """The same data and steps as a captioner's recipe: what corpus, maps and schedule read."""
        t = self.training
        stage = Stage(
            "scorer",
            "scorer",
            t.steps,
            batch=t.batch,
            lr=t.lr,
            trunk_lr=t.trunk_lr,
            warmup=t.warmup,
            final_lr=t.final_lr,
            captions=t.captions,
            views=t.views,
            checkpoint=t.checkpoint,
            evaluate=t.evaluate,
        )
        return Recipe(
            self.name, self.data, (stage,), seed=self.seed, imagenet="", monitor=self.monitor
        )

    def fingerprint(self, start: str) -> str:
        """Hash of all that decides the run's numbers; `start` is the student's own hash."""
        data = dataclasses.replace(self.data, root=".")
        text = json.dumps(chosen(dataclasses.replace(self, data=data, start=start)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_scorer_recipe(path: Path) -> ScorerRecipe:
    """Read a scorer's recipe.

    Raises:
        RecipeError: the file is missing, is no TOML, has an unknown key or a value that cannot be.
    """
    table = read_toml(path)
    try:
        recipe = build(ScorerRecipe, table, "")
        _check_training(recipe.training)
        recipe.dimensions(Dimensions())
        check(recipe.captioner())
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    return recipe


def _check_training(training: Training) -> None:
    for name in ("steps", "batch", "captions", "checkpoint"):
        if getattr(training, name) < 1:
            raise RecipeError(f"training.{name} must be at least 1, not 0")
    for name in SHARES:
        if getattr(training, name) > 1:
            raise RecipeError(f"training.{name} is a share: at most 1")
    unknown = sorted(set(training.train) - set(GROUPS))
    if unknown or not training.train:
        what = repr(unknown[0]) if unknown else "nothing"
        raise RecipeError(f"training.train has {what}; known are {', '.join(GROUPS)}")
