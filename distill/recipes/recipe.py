"""A recipe: one TOML file that says everything about a training run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanocap.distill.recipes.records import build, chosen, read_toml
from nanocap.errors import NanocapError, RecipeError
from nanocap.student.controls import QUALITIES
from nanocap.student.dimensions import PRESETS, Dimensions

CLASSIFIERS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
EVIDENCE = 8  # words that a decoder is told of, unless a recipe says otherwise
OF_ROW = "row"  # as the quality of a source: each row names its own
NAME = re.compile("[a-z0-9][a-z0-9-]*")  # of a folder
FROM_TEACHERS = ("distillation", "imitation", "relation")  # of a stage
OF_REWARDS = ("rewarded", "repetition", "truth", "worn")  # of a stage
AT_LEAST_ONE = ("batch", "captions", "samples", "checkpoint")  # of a stage


@dataclass(frozen=True)
class Source:
    """Photos with captions from one place: exactly one of `shards`, `table`, `folder`, `hub`.

    `shards`: a glob of WebDataset tars. `table`: JSON lines or Parquet beside an image folder, with
    a column of paths. `folder`: photos with a `.txt` or `.json` of the same name beside each.
    `hub`: a public Hugging Face data set by its name.
    """

    name: str
    shards: str = ""
    table: str = ""
    folder: str = ""
    hub: str = ""
    hub_config: str = ""
    split: str = "train"  # of a hub data set
    image: str = "image"  # column of a table or a hub data set; or `file_name`, or `path`
    captions: str = "captions"  # column (or `caption`, `text`), or several with commas
    quality: str = "high"  # the control token of its captions; `row`: what each row itself says
    weight: float = 1.0  # times that each photo is seen in an epoch
    aside: int = 0  # photos set aside before training, chosen by their keys
    limit: int = 0  # at most so many photos; 0 means all
    relabelled: str = ""  # JSON lines of `key` and `captions`, in the place of the photos' own
    drop: str = ""  # leave out captions that match this regular expression
    licence: str = ""


@dataclass(frozen=True)
class Data:
    """Where the photos come from and how their captions become tokens."""

    sources: tuple[Source, ...]
    root: str = "."  # folder that `shards`, `table`, `folder` and `text` are relative to
    text: tuple[str, ...] = ()  # more caption text for the tokenizer: .jsonl or .jsonl.gz
    vocabulary: int = 4096  # pieces at most: as many as the captions have
    concepts: int = 0  # words that a concept head learns; besides, it knows ImageNet's. 0: no head
    tokenizer: str = ""  # a finished student whose tokenizer is shared, beside the recipe


@dataclass(frozen=True)
class Stage:
    """One leg of the run. Each starts from the averaged weights of the one before."""

    name: str
    kind: str  # a key of distill.training.stages.STAGES, or `wording`
    steps: int
    train: tuple[str, ...] = ("decoder", "encoder", "concepts", "upper")  # groups: also "lower"
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
    temperature: float = 1.0  # self-critical: below 1 the captions drawn are like those of beams
    rewarded: tuple[str, ...] = ()  # self-critical: sources whose captions reward; none means all
    retrieval: float = 0.0  # self-critical: weight of being found by the `scorer`
    repetition: float = 0.0  # self-critical: what a word costs that people do not say twice
    truth: float = 0.0  # self-critical: what an object costs that no caption of the photo names
    worn: float = 0.0  # self-critical: what it costs to say phrases more often than people do
    floor: float = 0.0  # share of objects that must be there; below it the stage stops
    distillation: float = 0.0  # supervised: share of the loss that the `teachers` give
    imitation: float = 0.0  # weight of seeing in a photo what the `teachers` see
    relation: float = 0.0  # weight of finding photos as alike as the `teachers` find them
    cross_entropy: float = 0.1  # self-critical: share of the loss that stays supervised
    naming: float = 0.0  # weight of the concept head's loss
    texts: int = 0  # captions without photos (of `data.text`) that join a step, supervised
    swapped: float = 0.0  # share of these in which a noun gives way to a rare one
    renamed: int = 0  # captions of a step's photos in which a noun gives way, beside them
    keep: float = 1.0  # share of attentions and MLPs that stays; below 1 the stage prunes them
    checkpoint: int = 200  # steps between checkpoints
    evaluate: int = 400  # steps between looks at the photos set aside for monitoring
    best: bool = False  # end with the weights of the best look instead of the last
    blend: float = 1.0  # share of these in what the stage ends with; the rest is what it began from
    start_trunk: float = 0.0  # share that the trunk of `start` has in the trunk that it ends with


@dataclass(frozen=True)
class Before:
    """What has to be there before a run: another run (`recipe`), or labels (`teachers`).

    It is made below the run's folder. `before:NAME` in a recipe's paths is the student that it
    gave, `before:NAME/...` a file of it.
    """

    name: str
    recipe: str = ""  # of another run, beside this one
    teachers: tuple[str, ...] = ()  # `KIND:REST` each, that label photos
    images: tuple[str, ...] = ()  # shards (globs) or folders to label, relative to `data.root`
    captions: int = 5  # at most so many that a photo keeps
    original: str = "captions"  # keys of the text that a photo came with
    adapt: str = ""  # a student: what it does not see is left out


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
    fresh: bool = False  # with `start`: the trunk has ImageNet's weights all the same
    teachers: tuple[str, ...] = ()  # finished students to learn from, beside the recipe
    scorer: str = ""  # a finished scorer, beside the recipe
    monitor: str = ""  # sources whose `aside` photos are captioned while training, with commas
    student: Mapping[str, Any] = field(default_factory=dict)  # Dimensions that differ
    before: tuple[Before, ...] = ()  # in this order

    @property
    def monitored(self) -> tuple[str, ...]:
        """The names in `monitor`."""
        return tuple(filter(None, (name.strip() for name in self.monitor.split(","))))

    def dimensions(self) -> Dimensions:
        """The student's dimensions: the preset, the vocabulary, what `[student]` changes."""
        if self.preset not in PRESETS:
            raise RecipeError(f"unknown preset {self.preset!r}; known are {', '.join(PRESETS)}")
        values = {**PRESETS[self.preset].to_dict(), "vocabulary": self.data.vocabulary}
        try:
            return Dimensions.from_dict({**values, **self.student})
        except NanocapError as error:
            raise RecipeError(f"[student]: {error}") from error

    def with_concepts(self, concepts: int, learned: int) -> Recipe:
        """With a concept head for so many words, of which so many are learned."""
        head = {"evidence": EVIDENCE, **self.student, "concepts": concepts, "words": learned}
        return dataclasses.replace(self, student=head)

    def fingerprint(self, before: tuple[str, ...] = ()) -> str:
        """Hash of all that decides the run's numbers.

        Args:
            before: digests of what earlier runs have made, however they were made.

        Only of what differs from the defaults, so that a key that a later version adds leaves the
        runs of an earlier one valid; and not of where the photos lie.
        """
        data = dataclasses.replace(self.data, root=".")
        elsewhere = dataclasses.replace(self, data=data, before=())
        text = json.dumps(chosen(elsewhere), sort_keys=True, default=str) + "".join(before)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


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


def check(recipe: Recipe) -> None:
    """What no single key can say: that the parts of a recipe agree.

    Raises:
        RecipeError: they do not.
    """
    recipe.dimensions()
    for place, needed in enumerate(recipe.before):
        at = f"before[{place}]"
        if bool(needed.recipe) == bool(needed.teachers):
            raise RecipeError(f"{at} needs exactly one of recipe, teachers")
        if bool(needed.teachers) != bool(needed.images):
            raise RecipeError(f"{at}: `images` are what `teachers` label")
        others = {other.name for other in recipe.before[:place]}
        if not NAME.fullmatch(needed.name) or needed.name in others:
            raise RecipeError(f"{at}: the name {needed.name!r} must be its own, of a-z, 0-9, '-'")
    names = [source.name for source in recipe.data.sources]
    for source in recipe.data.sources:
        at = f"source {source.name!r}"
        if sum(map(bool, (source.shards, source.table, source.folder, source.hub))) != 1:
            raise RecipeError(f"{at} needs exactly one of shards, table, folder, hub")
        if names.count(source.name) > 1:
            raise RecipeError(f"two sources are named {source.name!r}")
        if source.quality not in (*QUALITIES, OF_ROW):
            known = ", ".join((*QUALITIES, OF_ROW))
            raise RecipeError(f"{at}: quality {source.quality!r} is not one of {known}")
        try:
            re.compile(source.drop)
        except re.error as error:
            what = f"drop {source.drop!r} is no regular expression ({error})"
            raise RecipeError(f"{at}: {what}") from error
    for index, stage in enumerate(recipe.stages):
        at = f"stages[{index}]"
        for name in AT_LEAST_ONE:
            if getattr(stage, name) < 1:
                raise RecipeError(f"{at}.{name} must be at least 1, not 0")
        if not 0 < stage.keep <= 1:
            raise RecipeError(f"{at}.keep is a share above 0 and at most 1, not {stage.keep:g}")
        for name in stage.rewarded:
            if name not in names:
                raise RecipeError(f"{at}.rewarded: {name!r} is not the name of a source")
        told = stage.texts or stage.renamed
        if (stage.naming or told or stage.kind == "naming") and not recipe.data.concepts:
            raise RecipeError(
                f"{at}: naming, texts and renamed need `data.concepts`, words to know"
            )
        if stage.kind == "naming" and not stage.naming:
            raise RecipeError(f"{at}.naming is the weight of its only loss: above 0")
        if told and stage.kind == "naming":
            raise RecipeError(f"{at}: texts and renamed are for stages that learn captions")
        if stage.texts and not recipe.data.text:
            raise RecipeError(f"{at}.texts needs `data.text`, files of captions")
        if stage.swapped > 1:
            raise RecipeError(f"{at}.swapped is a share: at most 1")
        if stage.temperature <= 0:
            raise RecipeError(f"{at}.temperature must be above 0, not {stage.temperature:g}")
        for name in OF_REWARDS:
            if getattr(stage, name) and stage.kind != "self-critical":
                raise RecipeError(f"{at}.{name} is for self-critical stages only")
        if stage.distillation > 1:
            raise RecipeError(f"{at}.distillation is a share: at most 1")
        for name in FROM_TEACHERS:
            if getattr(stage, name) and not recipe.teachers:
                raise RecipeError(f"{at}.{name} needs `teachers` to learn from")
            if getattr(stage, name) and stage.kind != "supervised":
                raise RecipeError(f"{at}.{name} is for supervised stages only")
        if stage.retrieval and (stage.kind != "self-critical" or not recipe.scorer):
            raise RecipeError(f"{at}.retrieval is for self-critical stages, and needs a `scorer`")
        if stage.retrieval and not stage.floor:
            raise RecipeError(
                f"{at}.retrieval needs a `floor`, such as 0.55: rewarded for being found"
                " alone, captions soon name what is not there"
            )
        if stage.floor and stage.keep < 1:
            raise RecipeError(f"{at}: a stage that prunes has no floor to fall back to")
        if not 0 < stage.blend <= 1:
            raise RecipeError(f"{at}.blend is a share: above 0, at most 1")
        if stage.blend < 1 and stage.keep < 1:
            raise RecipeError(f"{at}.blend is for stages that prune nothing")
        if stage.start_trunk and (not recipe.start or stage.keep < 1):
            raise RecipeError(f"{at}.start_trunk needs a `start`, and a stage that prunes nothing")
        if stage.start_trunk > 1:
            raise RecipeError(f"{at}.start_trunk is a share: at most 1")
        if stage.best and (stage.floor or stage.keep < 1):
            raise RecipeError(f"{at}.best is for stages without `floor` and `keep`")
        if stage.best and not (recipe.monitor and stage.evaluate):
            raise RecipeError(f"{at}.best needs `monitor` and `evaluate`")
        if stage.floor > 1:
            raise RecipeError(f"{at}.floor is a share: at most 1")
        if stage.floor and not (recipe.monitor and stage.evaluate):
            raise RecipeError(f"{at}.floor needs `monitor` and `evaluate`")
    if recipe.data.concepts and recipe.imagenet.split("+")[0] not in CLASSIFIERS:
        known = ", ".join(CLASSIFIERS)
        raise RecipeError(f"data.concepts needs a trunk with a classifier: `imagenet` of {known}")
    if recipe.start and recipe.teachers:
        raise RecipeError("`start` and `teachers` each bring a tokenizer: name one of them")
    if recipe.data.tokenizer and (recipe.start or recipe.teachers):
        raise RecipeError("`data.tokenizer` is for runs without `start` and `teachers`")
    for name in recipe.monitored:
        if name not in names:
            raise RecipeError(f"monitor {name!r} is not the name of a source")
    if not recipe.data.sources or not recipe.stages:
        raise RecipeError("a recipe needs at least one [[data.sources]] and one [[stages]]")
