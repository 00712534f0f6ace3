"""A run: a recipe with its photos, its folder, and all that its files are made from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from nanocap.bundle.vocabulary import WORD_MARK
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.teachers.similarity import ImageTextScorer
from nanocap.distill.training import pretrained_trunks
from nanocap.distill.training.white_box_teachers import Guides
from nanocap.errors import RecipeError
from nanocap.files.digest import file_digest
from nanocap.student import Dimensions, Student
from nanocap.student.controls import LENGTH, QUALITY
from nanocap.student.dimensions import OF_EVIDENCE

WITHOUT_WEIGHTS = ("reducer", "keep")  # a student may go on with fewer tokens, or reduced otherwise


class Start:
    """A `student.safetensors` with its tokenizer, that a run goes on from.

    Raises:
        NanocapError: the file is missing or damaged.
        RecipeError: it is a stage's weights without a tokenizer, not a finished student.
    """

    def __init__(self, path: Path):
        self.path = path
        self._student, metadata = Student.load(path)
        if "tokenizer" not in metadata:
            raise RecipeError(f"start: {path} has no tokenizer: it must be a finished student")
        self.tokenizer = metadata["tokenizer"]
        self.training: dict[str, Any] = json.loads(metadata.get("training", "{}"))

    @property
    def has_concepts(self) -> bool:
        """Whether it has a concept head."""
        return bool(self._student.dimensions.evidence)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return file_digest(self.path)

    def student(self, dimensions: Dimensions, tokenizer: Tokenizer | None = None) -> Student:
        """The student, with the reduction of tokens that the recipe asks for.

        What was pruned stays so, whether the recipe says it or not. One without a concept head gets
        a new one, and the pieces of its words.

        Raises:
            RecipeError: its weights are of other dimensions.
        """
        if dimensions.pruned is None:
            dimensions = replace(dimensions, pruned=self._student.dimensions.pruned)
        theirs, ours = self._student.dimensions.to_dict(), dimensions.to_dict()
        grows = dimensions.evidence and not self._student.dimensions.evidence
        new = ("vocabulary", *OF_EVIDENCE) if grows else ()
        for name, value in ours.items():
            found = theirs.get(name, "nothing")  # of what only a pruned student has
            if name not in (*WITHOUT_WEIGHTS, *new) and found != value:
                raise RecipeError(
                    f"start: {self.path} has {name} {found}, but the recipe asks for {value}"
                )
        student = Student(dimensions)
        state = self._student.state_dict()
        if grows:
            assert tokenizer is not None
            name = "decoder.embedding.weight"
            state[name] = self._grown(state[name], tokenizer)
            state = {**student.state_dict(), **state}  # what is new stays as it was drawn
        student.load_state_dict(state)
        return student

    def upper_trunk(self) -> dict[str, Tensor]:
        """Weights of its trunk that a stage may train without its maps being made anew, by name."""
        parameters = {id(p) for p in self._student.encoder.trunk.upper_parameters()}
        named = self._student.named_parameters()
        return {name: p.detach() for name, p in named if id(p) in parameters}

    def _grown(self, embedding_VC: Tensor, tokenizer: Tokenizer) -> Tensor:
        """With rows for the pieces that a tokenizer has more: means of what they were before."""
        ours = Tokenizer.from_str(self.tokenizer)
        count = len(embedding_VC)
        pieces = sorted(tokenizer.get_vocab().items(), key=itemgetter(1))
        old = [ours.encode(piece.removeprefix(WORD_MARK)).ids for piece, _ in pieces[count:]]
        return torch.cat([embedding_VC, *(embedding_VC[ids].mean(0, True) for ids in old)])


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

    @property
    def best(self) -> Path:
        """The weights of the stage under way whose captions were best."""
        return self.out / "best.safetensors"

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
        training: dict[str, object] = {}
        if self.start is not None:
            training["start"] = self.start.training
        if self.guides is not None:
            training["teachers"] = self.guides.training
        pruned = {stage.name: stage.keep for stage in recipe.stages if stage.keep < 1}
        if pruned:
            training["keep"] = pruned
        training |= {
            "recipe": recipe.name,
            "seed": recipe.seed,
            "fingerprint": self.fingerprint(len(recipe.stages) - 1),
            "steps": {stage.name: stage.steps for stage in recipe.stages},
            "data": [
                {"name": s.name, "licence": s.licence or "unknown"} for s in recipe.data.sources
            ],
            "weights": pretrained_trunks.describe(recipe.imagenet) if recipe.imagenet else [],
        }
        return {
            "tokenizer": self.corpus.tokenizer.to_str(),
            "controls": json.dumps({"quality": QUALITY, "length": LENGTH}),
            "training": json.dumps(training),
        }
