"""A recipe for somebody's own folder of photos with captions, sized by what is in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from nanocap.distill.data import tokenizer as pieces
from nanocap.distill.data.sources import LABELS, read_source, source_in
from nanocap.distill.recipes.recipe import Source
from nanocap.errors import DataError, OptionError, one_line
from nanocap.files.whole_file import whole_file

MOST_PIECES = 4096  # of a vocabulary
ASIDE, MOST_ASIDE = 10, 200  # one photo of so many is set aside, at most so many
FEWEST_ASIDE = 5  # with fewer nothing is measured

MONITOR = 'monitor = "own"  # source whose held-out photos are evaluated during training\n'
TEXT = """\
# A student from the {photos} photos of {folder}, of which {captioned} have captions.
#
#   nanocap distill {name} --out {out}
#
# Every key is explained in nanocap.distill.recipes.recipe (distill/README.md); what is not named
# here has its default.

name = {recipe}
preset = "{preset}"  # nano-xs, nano-s or nano-m: a larger one needs more photos
imagenet = "efficientnet-lite0"  # pretrained weights of the trunk
{monitor}
[data]
root = {root}  # what the source below is relative to
vocabulary = {vocabulary}  # word pieces; no more than the captions give

[[data.sources]]
name = "own"
{kind} = {where}
{more}licence = "unknown"  # goes onto the model card

[[stages]]
name = "maps"
kind = "supervised"
steps = {steps}  # more overfit the photos, fewer caption all alike
batch = {batch}  # photos a step
warmup = {warmup}
ema = 0.99
checkpoint = {checkpoint}
evaluate = {evaluate}  # steps between evaluations on the held-out photos
"""


@dataclass(frozen=True)
class Size:
    """What so many photos can carry."""

    most: float  # photos; of the first size that holds them all the rest is taken
    preset: str
    steps: int
    batch: int


SIZES = (
    Size(31, "nano-xs", 160, 8),
    Size(300, "nano-xs", 400, 16),
    Size(3000, "nano-s", 1200, 32),
    Size(float("inf"), "nano-s", 2100, 64),
)


@dataclass(frozen=True)
class Draft:
    """A recipe that was written, and what it is made from."""

    recipe: Path  # its file
    out: Path
    found: str  # the table, the shards or the folder with the captions
    photos: int  # with captions
    captions: int
    left_out: dict[str, str]  # the other photos: why, by key

    @property
    def command(self) -> str:
        """What to do next."""
        return f"nanocap distill {self.recipe} --out {self.out}"


def draft_recipe(folder: Path, path: Path) -> Draft:
    """Write a recipe for a folder: for a table in it, labels, or the texts beside its photos.

    Args:
        path: of the recipe; no file must be there.
    Raises:
        OptionError: there is a file at `path`, or no folder at `folder`.
        DataError: no photo has a caption, or something cannot be read.
    """
    if path.exists():
        raise OptionError(f"{path}: already exists; name another: nanocap distill NAME.toml --init")
    if not folder.is_dir():
        raise OptionError(f"--init {folder}: is no folder; name the one of your photos")
    source, left_out = source_in(str(folder)), dict[str, str]()
    counts: list[int] = []
    texts: list[str] = []
    try:
        for example in read_source(source, Path(), left_out.__setitem__):
            texts += filter(None, map(pieces.normalize, example.captions))
            counts.append(len(example.captions))
    except DataError as error:
        if texts or not (source.folder and left_out):
            raise
        raise DataError(
            f"{folder}: none of its {len(left_out)} photos has a caption: write captions.jsonl"
            ' there, {"image": "a.jpg", "caption": "..."} a line, or a .txt beside each photo, or'
            f" let a teacher: nanocap label --teacher KIND:REST --images {folder} --out LABELS,"
            " then --init LABELS"
        ) from error
    found = _where(source)
    draft = Draft(path, Path("runs") / path.stem, found[1], len(counts), sum(counts), left_out)
    try:
        with whole_file(path) as partial:
            partial.write_text(_text(draft, folder, found, texts), encoding="utf-8")
    except (OSError, UnicodeEncodeError) as error:
        raise DataError(f"{path}: cannot be written ({error})") from error
    return draft


def _where(source: Source) -> tuple[str, str]:
    """The key of the source in the recipe and its value, relative to the folder."""
    if source.table:
        return "table", Path(source.table).name
    return ("shards", LABELS) if source.shards else ("folder", ".")


def _text(draft: Draft, folder: Path, found: tuple[str, str], texts: list[str]) -> str:
    size = next(size for size in SIZES if draft.photos <= size.most)
    aside = min(draft.photos // ASIDE, MOST_ASIDE)
    aside = aside if aside >= FEWEST_ASIDE else 0
    kind, where = found
    more = 'quality = "row"  # as each row of nanocap label says\n' if kind == "shards" else ""
    if aside:
        more += f"aside = {aside}  # photos held out of training, to measure with\n"
    return TEXT.format(
        photos=draft.photos + len(draft.left_out),
        folder=one_line(folder.name or folder),
        captioned=draft.photos,
        name=one_line(draft.recipe.name),
        out=one_line(draft.out),
        recipe=_quoted(draft.recipe.stem),
        preset=size.preset,
        monitor=MONITOR if aside else "",
        root=_quoted(_root(folder, draft.recipe)),
        vocabulary=pieces.train_tokenizer(texts, MOST_PIECES).get_vocab_size(),
        kind=kind,
        where=_quoted(where),
        more=more,
        steps=size.steps,
        batch=size.batch,
        warmup=max(10, size.steps // 20),
        checkpoint=max(50, size.steps // 10),
        evaluate=size.steps // 4 if aside else 0,
    )


def _root(folder: Path, recipe: Path) -> str:
    """Of a folder beside the recipe or below, a name that moves with both; else the whole path."""
    whole, beside = folder.resolve(), recipe.resolve().parent
    relative = whole.relative_to(beside) if whole.is_relative_to(beside) else whole
    return relative.as_posix()


def _quoted(text: str) -> str:
    """A string of TOML."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
