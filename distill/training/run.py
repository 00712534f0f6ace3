"""A run: a recipe with its photos, its folder, and all that its files are made from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.tokenizer import LENGTH, QUALITY
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.scorer.similarity import ImageTextScorer
from nanocap.distill.teachers.white_box import Guides
from nanocap.distill.training import pretrained_trunks
from nanocap.distill.training.warm_start import Start


@dataclass(frozen=True)
class Run:
    """A run's folder and what it is made from."""

    recipe: Recipe
    corpus: Corpus
    out: Path
    cache: Path
    start: Start | None = None
    guides: Guides | None = None
    scorer: ImageTextScorer | None = None
    beside: Path = Path()  # the recipe's folder: files of weights are named from there
    before: tuple[str, ...] = ()  # digests of what earlier runs of a chain have made

    def finished(self, stage: int) -> Path:
        """The averaged weights that a stage ended with."""
        return self.out / f"stage-{stage}-{self.recipe.stages[stage].name}.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The stage that is under way."""
        return self.out / "checkpoint.safetensors"

    @property
    def faithful(self) -> Path:
        """The last weights of the stage under way that were above its floor."""
        return self.out / "faithful.safetensors"

    def fingerprint(self, stage: int) -> str:
        """Hash of all that decides the numbers up to this stage: later stages may still change."""
        start = self.start.digest if self.start is not None else ""
        stages = self.recipe.stages[: stage + 1]
        teachers = self.guides.digests if self.guides is not None else ()
        shared = self.corpus.tokenizer.to_str() if self.recipe.data.tokenizer else ""
        data = replace(self.recipe.data, tokenizer=shared)
        of_files = replace(self.recipe, data=data, stages=stages, start=start, teachers=teachers)
        return of_files.fingerprint(self.before)

    def metadata(self) -> dict[str, str]:
        """What a converter needs beside the weights."""
        recipe = self.recipe
        data = [
            {"name": source.name, "licence": source.licence or "unknown"}
            for source in recipe.data.sources
        ]
        before: dict[str, object] = {}
        if self.start is not None:
            before = {"start": self.start.training}
        if self.guides is not None:
            before["teachers"] = self.guides.training
        pruned = {stage.name: stage.keep for stage in recipe.stages if stage.keep < 1}
        if pruned:
            before["keep"] = pruned
        training = {
            **before,
            "recipe": recipe.name,
            "seed": recipe.seed,
            "fingerprint": self.fingerprint(len(recipe.stages) - 1),
            "steps": {stage.name: stage.steps for stage in recipe.stages},
            "data": data,
            "weights": pretrained_trunks.describe(recipe.imagenet) if recipe.imagenet else [],
        }
        return {
            "tokenizer": self.corpus.tokenizer.to_str(),
            "controls": json.dumps({"quality": QUALITY, "length": LENGTH}),
            "training": json.dumps(training),
        }
