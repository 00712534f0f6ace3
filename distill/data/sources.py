"""One reader for every kind of source, over Hugging Face `datasets`."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanocap.distill.data.keys import distinct
from nanocap.distill.data.rows import CAPTIONS, cell, has, read_rows, texts
from nanocap.distill.data.stores import FolderStore, Sample, Store, TarStore
from nanocap.distill.recipes.recipe import OF_ROW, Source
from nanocap.errors import DataError, MissingExtraError, NanocapError
from nanocap.files.regular_file import read_file
from nanocap.student.controls import QUALITIES

TABLES = ("captions.jsonl", "metadata.jsonl", "captions.parquet", "metadata.parquet")  # of a folder
LABELS = "labels-*.tar"  # as `nanocap label` names them
TABLE_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class Example:
    """A photo as it was encoded, and its captions as they were written."""

    key: str
    image: bytes
    captions: tuple[str, ...]
    quality: str = ""  # that the row itself names; empty unless the source asks for it
    path: str = ""  # of the photo in its source, as others may call it; empty where that is its key


Rejected = Callable[[str, str], None]  # told the key of a row that cannot be used, and why


def source_of(pattern: str) -> Source:
    """Shards by a glob, or a table or a folder of photos by its path, as a source of its own."""
    if Path(pattern).is_dir():
        return source_in(pattern)
    is_table = Path(pattern).suffix.lower() in TABLE_FORMATS
    return Source(pattern, table=pattern) if is_table else Source(pattern, shards=pattern)


def source_in(folder: str) -> Source:
    """What a folder has: a table, labels of `nanocap label`, or texts beside its photos."""
    for name in TABLES:
        if (Path(folder) / name).is_file():
            return Source(folder, table=str(Path(folder) / name))
    if next(Path(folder).glob(LABELS), None) is not None:
        return Source(folder, shards=str(Path(glob.escape(folder)) / LABELS))
    return Source(folder, folder=folder)


def folder_of(source: Source, root: Path) -> Path | None:
    """The folder that a source's photos lie in as files; None where they do not."""
    if source.table:
        return (root / source.table).parent
    return root / source.folder if source.folder else None


def read_source(source: Source, root: Path, rejected: Rejected | None = None) -> Iterator[Example]:
    """Every example of a source, in the order of its files.

    Args:
        rejected: told of rows without a caption or a photo. Without it the first are passed over,
            as data sets for training have many, and the second are an error.
    Raises:
        DataError: nothing matches, a file is damaged, or the columns named in the recipe are not
            there.
    """
    count = 0
    theirs = _relabelled(source, root)
    for example in _read(source, root, rejected):
        captions = theirs.get(example.key, example.captions)
        if source.drop:
            captions = tuple(c for c in captions if not re.search(source.drop, c))
        if not captions:
            if rejected is not None:
                rejected(example.key, "has no reference captions")
            continue
        yield dataclasses.replace(example, captions=captions)
        count += 1
        if count == source.limit:
            return
    if not count:
        raise _refusal(source, "no photo with a caption in it")


def _read(source: Source, root: Path, rejected: Rejected | None) -> Iterator[Example]:
    try:
        for kind, reader in READERS.items():
            if getattr(source, kind):
                yield from reader(source, root, rejected)
    except NanocapError:
        raise
    except Exception as error:  # the library raises many kinds, down to those of its parsers
        raise _refusal(source, f"cannot be read ({_first_line(error)})") from error


def set_aside(keys: list[str], count: int) -> set[str]:
    """The `count` keys that are kept out of training: chosen by hash, so by nothing else."""
    return set(sorted(keys, key=lambda key: hashlib.sha256(os.fsencode(key)).digest())[:count])


def _load(*args: Any, **kwargs: Any) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("reading photos and captions", extra="distill") from error
    try:
        return datasets.load_dataset(*args, streaming=True, **kwargs)
    except Exception as error:  # the library raises many kinds, down to network errors
        raise DataError(f"data set {args[0]}: cannot be read ({_first_line(error)})") from error


def _refusal(source: Source, text: str) -> DataError:
    return DataError(f"source {source.name!r}: {text}")


def _need(source: Source, row: Mapping[str, Any], column: str, where: object) -> None:
    if not has(row, column):
        raise _refusal(source, f"{where} has no {column!r}; it has {', '.join(row)}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _captions(source: Source, row: Mapping[str, Any], where: object) -> tuple[str, ...]:
    """The texts of the columns that the recipe names, such as `caption_0,caption_1`."""
    columns = [name.strip() for name in source.captions.split(",")]
    for name in columns:
        _need(source, row, name, where)
    return tuple(text for name in columns for text in texts(cell(row, name)))


def _quality(source: Source, row: Mapping[str, Any], where: object) -> str:
    """The level that a row itself names, where the source asks for that."""
    if source.quality != OF_ROW:
        return ""
    found = row.get("quality")
    if found not in QUALITIES:
        only = f"{', '.join(QUALITIES)}; only rows of nanocap label have one of their own"
        raise _refusal(source, f"{where} has the quality {found!r}, not one of {only}")
    return str(found)


def _relabelled(source: Source, root: Path) -> dict[str, tuple[str, ...]]:
    """Captions by key that take the place of those that the source has."""
    if not source.relabelled:
        return {}
    found = {}
    for row, where in read_rows(root / source.relabelled):
        _need(source, row, CAPTIONS, where)
        found[str(row.get("key"))] = texts(cell(row, CAPTIONS))
    return found


def _read_shards(source: Source, root: Path, rejected: Rejected | None) -> Iterator[Example]:
    files = sorted(glob.glob(source.shards, root_dir=root))
    if not files:
        raise _refusal(source, f"no file matches {root / source.shards}")
    found = 0
    for file in files:
        store = TarStore(root / file)
        for example in _of_store(source, store, store.keys, rejected):
            found += 1
            yield example
    if not found:
        raise _refusal(source, "its shards need an image and a .json a sample")


def _read_folder(source: Source, root: Path, rejected: Rejected | None) -> Iterator[Example]:
    if not (root / source.folder).is_dir():
        raise _refusal(source, f"{root / source.folder} is no folder")
    store = FolderStore(root / source.folder)
    yield from _of_store(source, store, distinct(store.keys, store.suffixes), rejected)


def _of_store(
    source: Source, store: Store, keys: list[str], rejected: Rejected | None
) -> Iterator[Example]:
    """The samples that have a photo, with what stands beside it."""
    for key, sample in zip(keys, store.samples(0), strict=True):
        if not sample.field:
            continue
        row = _beside(source, sample)
        captions = _captions(source, row, f"a {_kind(sample)}") if row is not None else ()
        quality = _quality(source, row or {}, key) if captions else ""
        try:
            image = sample.files[sample.field]()
        except OSError as error:
            if rejected is None:
                raise _refusal(source, f"{sample.path} cannot be read") from error
            rejected(key, "its photo cannot be read")
            continue
        yield Example(key, image, captions, quality, sample.path)


def _beside(source: Source, sample: Sample) -> Mapping[str, Any] | None:
    try:
        return sample.texts()
    except (OSError, ValueError, RecursionError) as error:
        file = f"{sample.key}{_kind(sample)}"
        raise _refusal(source, f"{file} cannot be read ({error})") from error


def _kind(sample: Sample) -> str:
    return ".json" if "json" in sample.files else ".txt"


def _read_table(source: Source, root: Path, rejected: Rejected | None) -> Iterator[Example]:
    path = root / source.table
    kind = TABLE_FORMATS.get(path.suffix.lower())
    if kind is None or not path.is_file():
        raise _refusal(source, f"{path} is no .jsonl or .parquet file")
    for row in _rows(kind, path):
        _need(source, row, source.image, path)
        captions, quality = _captions(source, row, path), _quality(source, row, path)
        photo = cell(row, source.image)
        if isinstance(photo, Mapping) and isinstance(photo.get("bytes"), bytes):
            # Parquet with the photos inside, such as `nanocap label --format parquet` writes
            key, name = str(row.get("key", photo.get("path"))), str(photo.get("path") or "")
            yield Example(key, photo["bytes"], captions, quality, name)
            continue
        try:
            file = _beside_table(path, str(photo))
            yield Example(str(photo), read_file(file), captions, quality)
        except (OSError, ValueError) as error:  # ValueError: a path with a null byte
            file = path.parent / str(photo)
            if rejected is None:
                raise _refusal(source, f"{file} cannot be read") from error
            rejected(str(photo), f"its photo cannot be read: {file}")


def _beside_table(table: Path, photo: str) -> Path:
    """The photo that a table names: from its folder, else by as much of the path as leads there.

    `nanocap caption --json holiday > holiday/captions.jsonl` names `holiday/a.jpg`.
    """
    parts = Path(photo).parts
    ways = (table.parent.joinpath(*parts[first:]) for first in range(len(parts)))
    return next((way for way in ways if way.is_file()), table.parent / photo)


def _rows(kind: str, path: Path) -> Iterator[Mapping[str, Any]]:
    if kind == "json":
        yield from (row for row, _ in read_rows(path))
        return
    # The library keeps a lock of each table that it reads: below the home folder, unless told else.
    with tempfile.TemporaryDirectory() as locks:
        data = glob.escape(str(path))
        yield from _load(kind, data_files=data, split="train", cache_dir=locks)


def _read_hub(source: Source, root: Path, rejected: Rejected | None) -> Iterator[Example]:
    import datasets

    rows = _load(source.hub, source.hub_config or None, split=source.split)
    if source.image not in (rows.features or {}):
        raise _refusal(source, f"{source.hub} has no column {source.image!r}")
    rows = rows.cast_column(source.image, datasets.Image(decode=False))
    for index, row in enumerate(rows):
        data = row[source.image]["bytes"] or Path(row[source.image]["path"]).read_bytes()
        key, captions = f"{source.hub}/{source.split}/{index}", _captions(source, row, source.hub)
        yield Example(key, data, captions, _quality(source, row, key))


READERS = {
    "shards": _read_shards,
    "table": _read_table,
    "folder": _read_folder,
    "hub": _read_hub,
}
