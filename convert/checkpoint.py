"""A student's checkpoint with all that a bundle says about it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanocap.bundle.manifest import Controls, SearchDefaults, TokenIds, never_generated
from nanocap.bundle.vocabulary import Vocabulary
from nanocap.convert.errors import ConversionError
from nanocap.convert.probe import Probe
from nanocap.errors import NanocapError
from nanocap.image.rule import ImageRule
from nanocap.student import Student
from nanocap.student.controls import LENGTHS, QUALITIES
from nanocap.student.repeats import RepeatRule
from nanocap.student.search import Search
from nanocap.student.student import count_parameters
from nanocap.student.trunks import SEPARATOR

TOKEN_PIECES = {"pad": "<pad>", "end": "<end>", "unknown": "<unk>"}


@dataclass(frozen=True)
class Checkpoint:
    """A student, its tokenizer and how it was trained.

    Attributes:
        student: in eval mode.
        tokenizer: the whole of `tokenizer.json`.
        training: recipe, data with licences, origin of the weights it started from.
        where: its name in messages.
    """

    student: Student
    tokenizer: str
    training: Mapping[str, Any]
    where: str = "checkpoint"

    def vocabulary(self) -> Vocabulary:
        """The pieces by id. Raises BundleError if the tokenizer is not one for this student."""
        size = self.student.dimensions.vocabulary
        data = self.tokenizer.encode()
        return Vocabulary.from_tokenizer(data, size, f"{self.where}: tokenizer")

    def tokens(self) -> TokenIds:
        """Ids that are not text."""
        return TokenIds(**{name: self._id(piece) for name, piece in TOKEN_PIECES.items()})

    def controls(self) -> Controls:
        """Ids of the control tokens."""
        return Controls(
            quality={name: self._id(f"<quality:{name}>") for name in QUALITIES},
            length={name: self._id(f"<length:{name}>") for name in LENGTHS},
        )

    def ids(self) -> dict[str, int]:
        """Ids that are not text, all by one kind of name: `end`, `quality_high`."""
        controls = asdict(self.controls())
        named = {f"{kind}_{name}": i for kind, some in controls.items() for name, i in some.items()}
        return {**asdict(self.tokens()), **named}

    def dimensions(self) -> dict[str, Any]:
        """For the manifest: the student's, and what the runtime reads by its own names."""
        dimensions = self.student.dimensions
        widths = dimensions.widths
        inner = {
            "cache_width": widths.decoder_attention,
            "cross_width": widths.cross_attention,
        }
        return {
            **dimensions.to_dict(),
            "layers": dimensions.decoder_layers,
            **(inner if dimensions.pruned is not None else {}),
            "parameters": count_parameters(self.student),
        }

    def never(self) -> tuple[int, ...]:
        """The ids that no caption holds."""
        return never_generated(self.tokens(), self.controls(), self.vocabulary().special)

    def search(self, *, repeats: bool = False) -> Search:
        """Searches for its captions.

        Args:
            repeats: let it say a word twice in a row.
        """
        dimensions, tokens = self.student.dimensions, self.tokens()
        return Search(
            dimensions.vocabulary,
            dimensions.max_tokens - 1,  # the last position fed is that of the last piece
            tokens.end,
            tokens.pad,
            self.never(),
            None if repeats else RepeatRule(self.vocabulary().pieces),
        ).eval()

    def probe(self, pixels: Any, search: SearchDefaults) -> Probe:
        """Greedy captioning of `pixels` [photos, size, size, 3] with the default controls."""
        return Probe.of(pixels, self.controls(), search, self.never())

    def rule(self) -> ImageRule:
        """How an image becomes pixels for this student."""
        return ImageRule(size=self.student.dimensions.image_size)

    def _id(self, piece: str) -> int:
        try:
            return self.vocabulary().pieces.index(piece)
        except ValueError:
            raise ConversionError(
                f"{self.where}: its tokenizer has no piece {piece}; train with this version of"
                " nanocap distill"
            ) from None


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint that `nanocap distill` wrote as `student.safetensors`.

    Raises:
        ConversionError: the file is missing, damaged, or lacks what a bundle needs.
    """
    path = Path(path)
    try:
        student, metadata = Student.load(path)
    except NanocapError as error:
        raise ConversionError(f"{error}; give the student.safetensors of a run") from error
    if "tokenizer" not in metadata:
        raise ConversionError(
            f"{path}: holds no tokenizer; give the student.safetensors that nanocap distill wrote"
        )
    if SEPARATOR in student.dimensions.trunk:
        raise ConversionError(
            f"{path}: sees with several trunks ({student.dimensions.trunk}): it is a teacher;"
            " distil a student from it"
        )
    try:
        training = json.loads(metadata.get("training", "{}"))
        if not isinstance(training, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise ConversionError(f"{path}: its training notes are not JSON ({error})") from None
    return Checkpoint(student, metadata["tokenizer"], training, str(path))
