"""A finished student that a run goes on from, instead of from ImageNet weights alone."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nanocap.distill.data.digest import file_digest
from nanocap.errors import RecipeError
from nanocap.student import Dimensions, Student

WITHOUT_WEIGHTS = ("reducer", "keep")  # a student may go on with fewer tokens, or reduced otherwise


class Start:
    """A `student.safetensors` with its tokenizer.

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

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return file_digest(self.path)

    def student(self, dimensions: Dimensions) -> Student:
        """The student, with the reduction of tokens that the recipe asks for.

        What was pruned stays so, whether the recipe says it or not.

        Raises:
            RecipeError: its weights are of other dimensions.
        """
        if dimensions.pruned is None:
            dimensions = replace(dimensions, pruned=self._student.dimensions.pruned)
        theirs, ours = self._student.dimensions.to_dict(), dimensions.to_dict()
        for name, value in ours.items():
            found = theirs.get(name, "nothing")  # of what only a pruned student has
            if name not in WITHOUT_WEIGHTS and found != value:
                raise RecipeError(
                    f"start: {self.path} has {name} {found}, but the recipe asks for {value}"
                )
        student = Student(dimensions)
        student.load_state_dict(self._student.state_dict())
        return student
