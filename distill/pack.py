"""A recipe and its data in a small folder, to be trained on a borrowed machine without a network.

Photos are shrunk until all of it fits; captions, texts, the student that the run starts from and
the packages with ImageNet's weights come along. `run.sh` in the folder trains and leaves the
student in parts that any transfer takes.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nanocap.distill.data.sources import TABLES, Example, read_source
from nanocap.distill.recipes.recipe import Recipe, load_recipe
from nanocap.distill.recipes.records import read_toml
from nanocap.distill.training.pretrained_trunks import FILE_SUFFIX, PACKAGE
from nanocap.errors import DataError, NanocapError, RecipeError
from nanocap.files.whole_file import safe_path
from nanocap.image.image import load_rgb
from nanocap.progress import progress
from nanocap.student.trunks import SEPARATOR

SIDES = (224, 192, 160, 128)  # pixels of a photo's shorter side, the first that fits
QUALITY = 60  # of WebP
SAMPLE = 50  # of so many photos one is tried for the size
ENTRY = 2048  # bytes that a photo's two entries and its captions take in a tar file
PLACE = "source-{}"  # of a source
FEWER = ("start", "teachers", "before", "scorer")  # of a recipe: what is left here
PARTS = "15m"  # of the student's file, as `split` understands it

RUN = """\
#!/bin/sh
# Train what lies beside this file, and leave the student in OUT (default: here) in parts:
#   cat student.part-* > student.safetensors
# Python needs nanocap[distill]; what else the recipe imports is in packages/.
set -e
OUT="${{OUT:-$(dirname "$0")}}"
mkdir -p "$OUT"
OUT="$(cd "$OUT" && pwd)" # before the folder changes
cd "$(dirname "$0")"
export PYTHONPATH="$PWD/packages${{PYTHONPATH:+:$PYTHONPATH}}"
${{PYTHON:-python3}} -m nanocap distill recipe.toml --out run --cache cache
split -b {parts} run/student.safetensors "$OUT/student.part-"
cp run/metrics.jsonl run/curves.png "$OUT"
"""


@dataclass(frozen=True)
class Packed:
    """What was packed: photos, the shorter side that they have now, and bytes in all."""

    photos: int
    side: int
    bytes: int


def pack(
    path: Path,
    out: Path,
    megabytes: float,
    data: Path | None = None,
    start: Path | None = None,
    end_to_end: bool = False,
) -> Packed:
    """Write the folder `out`.

    Args:
        path: of the recipe.
        megabytes: that all of it may take.
        data: folder of the recipe's shards, instead of its own root.
        start: a finished student that takes the place of the recipe's `start`.
        end_to_end: train the lower trunk too, on photos that are augmented anew in every step.

    Raises:
        RecipeError: it needs teachers, a scorer, or a student that nobody gave.
        DataError: the photos do not fit, however small.
        NanocapError: `out` is there, or a source cannot be read.
    """
    recipe = load_recipe(path)
    if recipe.teachers or recipe.scorer:
        raise RecipeError(f"{path}: teachers and scorers are not packed; train without them")
    if recipe.start and start is None:
        raise RecipeError(f"{path}: starts from {recipe.start}; name its student with --start")
    if out.exists():
        raise NanocapError(f"{out}: already exists; choose another name")
    root = data if data is not None else path.parent / recipe.data.root
    texts = [root / name for name in recipe.data.text]
    packages = _packages(recipe)
    others = [*texts, *([start] if start else [])]
    room = megabytes * 1e6 - sum(file.stat().st_size for file in others)
    room -= sum(file.stat().st_size for folder in packages for file in _files(folder))
    examples = {source.name: list(read_source(source, root)) for source in recipe.data.sources}
    every = [example for some in examples.values() for example in some]
    side = _side([example.image for example in every[::SAMPLE]], len(every), room)
    folder = out.with_name(f".{out.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "packages").mkdir(parents=True)
    for package in packages:
        shutil.copytree(package, folder / "packages" / package.name, ignore=_COMPILED)
    for file in others:
        shutil.copy(file, folder / file.name)
    with progress("packing photos", len(every)) as part:
        for index, some in enumerate(examples.values()):
            write = _write_shard if _in_shard(some) else _write_table
            write(folder / PLACE.format(index), _shrunk(some, side, part.step))
    values = read_toml(path)
    places = [_place(index, _in_shard(some)) for index, some in enumerate(examples.values())]
    text = to_toml(_changed(values, recipe, texts, start, places, end_to_end))
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    script = folder / "run.sh"
    script.write_text(RUN.format(parts=PARTS), encoding="utf-8")
    script.chmod(0o755)
    folder.replace(out)
    return Packed(len(every), side, sum(file.stat().st_size for file in _files(out)))


def to_toml(values: Mapping[str, Any]) -> str:
    """The text of a recipe: plain values, tables, and lists of tables, as recipes have them."""
    plain = {key: one for key, one in values.items() if not _is_tables(one)}
    text = "".join(f"{key} = {_value(one)}\n" for key, one in plain.items())
    return text + "".join(_tables(values, ""))


def _tables(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, one in values.items():
        if not _is_tables(one):
            continue
        name = f"{prefix}{key}"
        several = isinstance(one, list)
        for table in one if several else [one]:
            yield f"\n[[{name}]]\n" if several else f"\n[{name}]\n"
            yield from (f"{k} = {_value(v)}\n" for k, v in table.items() if not _is_tables(v))
            yield from _tables(table, f"{name}.")


def _is_tables(value: object) -> bool:
    several = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    return isinstance(value, dict) or several


def _value(value: object) -> str:
    # JSON writes texts, numbers, truths and lists of them as TOML reads them
    return json.dumps(value)


def _changed(
    values: dict[str, Any],
    recipe: Recipe,
    texts: Sequence[Path],
    start: Path | None,
    places: Sequence[Mapping[str, str]],
    end_to_end: bool,
) -> dict[str, Any]:
    """The recipe's values with what lies in the folder, from where it lies there."""
    values = {key: one for key, one in values.items() if key not in FEWER}
    if start is not None:
        values["start"] = start.name
    values["data"] |= {"root": ".", "text": [file.name for file in texts]}
    values["data"]["sources"] = [
        {
            **{"name": one.name, "quality": one.quality, "weight": one.weight},
            **{"aside": one.aside, "licence": one.licence, **placed},
        }
        for one, placed in zip(recipe.data.sources, places, strict=True)
    ]
    if end_to_end:
        for stage in values["stages"]:
            stage["train"] = sorted({*stage.get("train", recipe.stages[0].train), "lower"})
    return values


def _packages(recipe: Recipe) -> list[Path]:
    """Folders of the installed packages that hold the trunk's weights."""
    found = []
    for name in recipe.imagenet.split(SEPARATOR) if recipe.imagenet else ():
        if name.endswith(FILE_SUFFIX):
            raise RecipeError(f"imagenet {name!r}: files of weights are not packed, packages are")
        spec = find_spec(PACKAGE.format(name=name).replace("-", "_"))
        if spec is None or spec.origin is None:
            raise NanocapError(f"the package {PACKAGE.format(name=name)} is not installed")
        found.append(Path(spec.origin).parent)
    return found


_COMPILED = shutil.ignore_patterns("__pycache__")


def _files(folder: Path) -> list[Path]:
    return [
        file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    ]


def _side(sample: Sequence[bytes], photos: int, room: float) -> int:
    """The largest of `SIDES` at which all photos fit, told by a sample of them."""
    for side in SIDES:
        size = ENTRY + sum(len(_webp(image, side)) for image in sample) / len(sample)
        if photos * size <= room:
            return side
    raise DataError(
        f"{photos} photos take {photos * size / 1e6:.0f} MB at {SIDES[-1]} pixels, and there are"
        f" {max(room, 0) / 1e6:.0f} left; allow more megabytes, or give sources a `limit`"
    )


def _webp(image: bytes, side: int) -> bytes:
    photo = load_rgb(image)
    scale = side / min(photo.size)
    if scale < 1:
        photo = photo.resize((round(photo.width * scale), round(photo.height * scale)))
    file = io.BytesIO()
    photo.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()


def _in_shard(examples: Sequence[Example]) -> bool:
    """Whether a shard keeps the keys: it takes what is behind a dot for the kind of a file.

    By their keys photos are set aside, so they stay as they are.
    """
    return not any("." in Path(example.key).name for example in examples)


def _place(index: int, in_shard: bool) -> dict[str, str]:
    name = PLACE.format(index)
    return {"shards": f"{name}.tar"} if in_shard else {"table": f"{name}/{TABLES[0]}"}


def _shrunk(
    examples: Sequence[Example], side: int, step: Callable[[], None]
) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Key, photo and row of each."""
    for example in examples:
        row = {"captions": example.captions, "quality": example.quality}
        yield example.key, _webp(example.image, side), row
        step()


def _write_shard(place: Path, rows: Iterator[tuple[str, bytes, dict[str, Any]]]) -> None:
    with tarfile.open(f"{place}.tar", "w") as tar:
        for key, photo, row in rows:
            for suffix, data in (("webp", photo), ("json", json.dumps(row).encode())):
                entry = tarfile.TarInfo(f"{key}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def _write_table(place: Path, rows: Iterator[tuple[str, bytes, dict[str, Any]]]) -> None:
    lines = []
    for key, photo, row in rows:
        path = place / safe_path(key, f"{place.name}: a key")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
        lines.append(json.dumps({"image": key, **row}) + "\n")
    (place / TABLES[0]).write_text("".join(lines), encoding="utf-8")
