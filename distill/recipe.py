"""A recipe: one TOML file that says everything about a training run."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nanocap.distill.tokenizer import QUALITIES
from nanocap.errors import NanocapError, RecipeError
from nanocap.student.dimensions import PRESETS, Dimensions

T = TypeVar("T")

OF_ROW = "row"  # as the quality of a source: each row names its own
FROM_TEACHERS = ("distillation", "imitation", "relation")  # of a stage
AT_LEAST_ONE = ("batch", "captions", "samples", "checkpoint")  # of a stage


@dataclass(frozen=True)
class Source:
    """Photos with captions from one place: exactly one of `shards`, `table`, `hub`.

    `shards`: a glob of WebDataset tars. `table`: JSON lines or Parquet beside an image folder, with
    a column of paths. `hub`: a public Hugging Face data set by its name.
    """

    name: str
    shards: str = ""
    table: str = ""
    hub: str = ""
    hub_config: str = ""
    split: str = "train"  # of a hub data set
    image: str = "image"  # column of a table or a hub data set
    captions: str = "captions"  # column, or several with commas: a text or a list of texts each
    quality: str = "high"  # the control token of its captions; `row`: what each row itself says
    weight: float = 1.0  # times that each photo is seen in an epoch
    aside: int = 0  # photos set aside before training, chosen by their keys
    limit: int = 0  # at most so many photos; 0 means all
    drop: str = ""  # leave out captions that match this regular expression
    licence: str = ""


@dataclass(frozen=True)
class Data:
    """Where the photos come from and how their captions become tokens."""

    sources: tuple[Source, ...]
    root: str = "."  # folder that `shards`, `table` and `text` are relative to
    text: tuple[str, ...] = ()  # more caption text for the tokenizer: .jsonl or .jsonl.gz
    vocabulary: int = 4096
    tokenizer: str = ""  # a finished student whose tokenizer is shared, beside the recipe


@dataclass(frozen=True)
class Stage:
    """One leg of the run. Each starts from the averaged weights of the one before."""

    name: str
    kind: str  # a key of distill.stages.STAGES
    steps: int
    train: tuple[str, ...] = ("decoder", "encoder", "upper")  # groups: also "lower"
    batch: int = 64  # photos a step, over all processes together
    lr: float = 5e-4
    trunk_lr: float = 1e-4  # for "upper" and "lower"
    warmup: int = 100
    final_lr: float = 0.02  # share of lr that the cosine ends at
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    dropout: float = 0.1
    captions: int = 5  # at most so many captions of a photo in a step
    views: int = 3  # augmented views whose maps are cached, where the lower trunk rests
    clip: float = 1.0
    ema: float = 0.999
    samples: int = 5  # self-critical: captions drawn for each photo
    distillation: float = 0.0  # supervised: share of the loss that the `teachers` give
    imitation: float = 0.0  # weight of seeing in a photo what the `teachers` see
    relation: float = 0.0  # weight of finding photos as alike as the `teachers` find them
    cross_entropy: float = 0.1  # self-critical: share of the loss that stays supervised
    keep: float = 1.0  # share of attentions and MLPs that stays; below 1 the stage prunes them
    checkpoint: int = 200  # steps between checkpoints
    evaluate: int = 400  # steps between looks at the photos set aside for monitoring


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    name: str
    data: Data
    stages: tuple[Stage, ...]
    preset: str = "nano-s"
    seed: int = 0
    imagenet: str = "efficientnet-lite0"  # packages or files of weights, as the trunk's parts
    start: str = ""  # a finished student to go on from instead, beside the recipe
    teachers: tuple[str, ...] = ()  # finished students to learn from, beside the recipe
    monitor: str = ""  # source whose `aside` photos are captioned while training
    student: Mapping[str, Any] = field(default_factory=dict)  # Dimensions that differ

    def dimensions(self) -> Dimensions:
        """The student's dimensions: the preset, the vocabulary, what `[student]` changes."""
        if self.preset not in PRESETS:
            raise RecipeError(f"unknown preset {self.preset!r}; known are {', '.join(PRESETS)}")
        values = {**PRESETS[self.preset].to_dict(), "vocabulary": self.data.vocabulary}
        try:
            return Dimensions.from_dict({**values, **self.student})
        except NanocapError as error:
            raise RecipeError(f"[student]: {error}") from error

    def fingerprint(self) -> str:
        """Hash of all that decides the run's numbers.

        Only of what differs from the defaults, so that a key that a later version adds leaves the
        runs of an earlier one valid; and not of where the photos lie.
        """
        elsewhere = dataclasses.replace(self, data=dataclasses.replace(self.data, root="."))
        text = json.dumps(chosen(elsewhere), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def chosen(value: Any) -> Any:
    """A frozen record as plain data, without what is at its default."""
    if isinstance(value, tuple):
        return [chosen(one) for one in value]
    if not dataclasses.is_dataclass(value):
        return value
    return {
        f.name: chosen(getattr(value, f.name))
        for f in dataclasses.fields(value)
        if getattr(value, f.name) != f.default
    }


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: the file is missing, is no TOML, has an unknown key or a value of a wrong type.
    """
    table = read_toml(path)
    try:
        recipe = build(Recipe, table, "")
        check(recipe)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    return recipe


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a file.

    Raises:
        RecipeError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from error


def check(recipe: Recipe) -> None:
    """What no single key can say: that the parts of a recipe agree.

    Raises:
        RecipeError: they do not.
    """
    recipe.dimensions()
    names = [source.name for source in recipe.data.sources]
    for source in recipe.data.sources:
        if sum(map(bool, (source.shards, source.table, source.hub))) != 1:
            raise RecipeError(f"source {source.name!r} needs exactly one of shards, table, hub")
        if names.count(source.name) > 1:
            raise RecipeError(f"two sources are named {source.name!r}")
        if source.quality not in (*QUALITIES, OF_ROW):
            raise RecipeError(
                f"source {source.name!r}: quality {source.quality!r} is not one of "
                f"{', '.join(QUALITIES)}, {OF_ROW}"
            )
        try:
            re.compile(source.drop)
        except re.error as error:
            raise RecipeError(
                f"source {source.name!r}: drop {source.drop!r} is no regular expression ({error})"
            ) from error
    for index, stage in enumerate(recipe.stages):
        for name in AT_LEAST_ONE:
            if getattr(stage, name) < 1:
                raise RecipeError(f"stages[{index}].{name} must be at least 1, not 0")
        if not 0 < stage.keep <= 1:
            raise RecipeError(
                f"stages[{index}].keep is a share above 0 and at most 1, not {stage.keep:g}"
            )
        if stage.distillation > 1:
            raise RecipeError(f"stages[{index}].distillation is a share: at most 1")
        for name in FROM_TEACHERS:
            if getattr(stage, name) and not recipe.teachers:
                raise RecipeError(f"stages[{index}].{name} needs `teachers` to learn from")
            if getattr(stage, name) and stage.kind != "supervised":
                raise RecipeError(f"stages[{index}].{name} is for supervised stages only")
    if recipe.start and recipe.teachers:
        raise RecipeError("`start` and `teachers` each bring a tokenizer: name one of them")
    if recipe.data.tokenizer and (recipe.start or recipe.teachers):
        raise RecipeError("`data.tokenizer` is for runs without `start` and `teachers`")
    if recipe.monitor and recipe.monitor not in names:
        raise RecipeError(f"monitor {recipe.monitor!r} is not the name of a source")
    if not recipe.data.sources or not recipe.stages:
        raise RecipeError("a recipe needs at least one [[data.sources]] and one [[stages]]")


def build(cls: type[T], table: object, where: str) -> T:
    """A frozen dataclass from a TOML table, recursively, refusing what does not fit."""
    if not isinstance(table, dict):
        raise RecipeError(f"{where or 'the recipe'} must be a table")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
            raise RecipeError(f"unknown key {key!r} in {where or 'the recipe'}{hint}")
    values = {k: _convert(hints[k], v, f"{where}.{k}".lstrip(".")) for k, v in table.items()}
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and f.name not in values:
            raise RecipeError(f"{where or 'the recipe'} lacks the key {f.name!r}")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where} must be a list")
        return tuple(
            _convert(typing.get_args(hint)[0], v, f"{where}[{i}]") for i, v in enumerate(value)
        )
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if origin is not None and not isinstance(hint, types.UnionType):
        hint = origin
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise RecipeError(f"{where} must be of type {hint.__name__.lower()}, not {value!r}")
    if hint in (int, float) and value < 0:
        raise RecipeError(f"{where} must not be negative, but is {value}")
    return value
