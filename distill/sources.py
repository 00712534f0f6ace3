"""One reader for every kind of source, over Hugging Face `datasets`."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nanocap.distill.recipe import OF_ROW, Source
from nanocap.distill.tokenizer import QUALITIES
from nanocap.errors import DataError, MissingExtraError, NanocapError
from nanocap.formats import SUFFIXES

IMAGE_SUFFIXES = ("webp", "jpg", "jpeg", "png")
TABLE_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class Example:
    """A photo as it was encoded, and its captions as they were written.

    Attributes:
        quality: that the row itself names; empty unless the source asks for it.
    """

    key: str
    image: bytes
    captions: tuple[str, ...]
    quality: str = ""


Rejected = Callable[[str, str], None]  # told the key of a row that cannot be used, and why


def source_of(pattern: str) -> Source:
    """Shards by a glob, or a table by its path, as a source of its own."""
    is_table = Path(pattern).suffix.lower() in TABLE_FORMATS
    return Source(pattern, table=pattern) if is_table else Source(pattern, shards=pattern)


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
    for example in _read(source, root, rejected):
        captions = example.captions
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
        raise DataError(f"source {source.name!r}: no photo with a caption in it")


def _read(source: Source, root: Path, rejected: Rejected | None) -> Iterator[Example]:
    try:
        for kind, reader in READERS.items():
            if getattr(source, kind):
                yield from reader(source, root, rejected)
    except NanocapError:
        raise
    except Exception as error:  # the library raises many kinds, down to those of its parsers
        raise DataError(f"source {source.name!r}: cannot be read ({_first_line(error)})") from error


def photo_key(path: str) -> str:
    """The key of a photo that is a file: its path in its folder, without the suffix.

    Dots in its name become `_`, since a key ends at the first dot once it is in a shard. A key
    stays as it is.
    """
    file = PurePosixPath(path)
    stem = file.stem if file.suffix.lower() in SUFFIXES else file.name
    return file.with_name(stem.replace(".", "_")).as_posix() if stem else path


def set_aside(keys: list[str], count: int) -> set[str]:
    """The `count` keys that are kept out of training: chosen by hash, so by nothing else."""
    return set(sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())[:count])


def _load(*args: Any, **kwargs: Any) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("reading photos and captions", extra="distill") from error
    try:
        return datasets.load_dataset(*args, streaming=True, **kwargs)
    except Exception as error:  # the library raises many kinds, down to network errors
        raise DataError(f"data set {args[0]}: cannot be read ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def texts(value: Any) -> tuple[str, ...]:
    """The texts of a cell, which is a text, a list of them, or nothing; empty ones passed over."""
    several = [value] if isinstance(value, str) else list(value or ())
    return tuple(text.strip() for text in several if isinstance(text, str) and text.strip())


def _captions(source: Source, row: Mapping[str, Any], where: object) -> tuple[str, ...]:
    """The texts of the columns that the recipe names, such as `caption_0,caption_1`."""
    columns = [name.strip() for name in source.captions.split(",")]
    missing = [name for name in columns if name not in row]
    if missing:
        raise DataError(
            f"source {source.name!r}: {where} has no {missing[0]!r}; it has {', '.join(row)}"
        )
    return tuple(text for name in columns for text in texts(row[name]))


def _quality(source: Source, row: Mapping[str, Any], where: object) -> str:
    """The level that a row itself names, where the source asks for that."""
    if source.quality != OF_ROW:
        return ""
    found = row.get("quality")
    if found not in QUALITIES:
        raise DataError(
            f"source {source.name!r}: {where} has the quality {found!r}, not one of"
            f" {', '.join(QUALITIES)}; only rows of nanocap label have one of their own"
        )
    return str(found)


def _samples(source: Source, root: Path) -> Iterator[tuple[str, bytes, Mapping[str, Any]]]:
    """Key, encoded photo and `.json` of each sample of WebDataset shards."""
    import datasets

    files = sorted(glob.glob(str(root / source.shards)))
    if not files:
        raise DataError(f"source {source.name!r}: no file matches {root / source.shards}")
    rows = _load("webdataset", data_files=files, split="train")
    columns = [column for column in IMAGE_SUFFIXES if column in rows.features]
    if not columns or "json" not in rows.features:
        raise DataError(f"source {source.name!r}: its shards need an image and a .json a sample")
    for column in columns:
        rows = rows.cast_column(column, datasets.Image(decode=False))
    for row in rows:
        image = next(row[column] for column in columns if row[column] is not None)
        yield row["__key__"], image["bytes"], row["json"]


def _read_shards(source: Source, root: Path, rejected: Rejected | None) -> Iterator[Example]:
    for key, image, row in _samples(source, root):
        yield Example(key, image, _captions(source, row, "a .json"), _quality(source, row, key))


def _read_table(source: Source, root: Path, rejected: Rejected | None) -> Iterator[Example]:
    path = root / source.table
    kind = TABLE_FORMATS.get(path.suffix.lower())
    if kind is None or not path.is_file():
        raise DataError(f"source {source.name!r}: {path} is no .jsonl or .parquet file")
    for row in _load(kind, data_files=str(path), split="train"):
        if source.image not in row:
            raise DataError(
                f"source {source.name!r}: {path} has no {source.image!r}; it has {', '.join(row)}"
            )
        captions, quality = _captions(source, row, path), _quality(source, row, path)
        cell = row[source.image]
        if isinstance(cell, Mapping) and isinstance(cell.get("bytes"), bytes):
            # Parquet with the photos inside, such as `nanocap label --format parquet` writes
            yield Example(str(row.get("key", cell.get("path"))), cell["bytes"], captions, quality)
            continue
        photo = path.parent / str(cell)
        try:
            yield Example(str(cell), photo.read_bytes(), captions, quality)
        except OSError as error:
            if rejected is None:
                raise DataError(f"source {source.name!r}: {photo} cannot be read") from error
            rejected(str(cell), "its photo cannot be read")


def _read_hub(source: Source, root: Path, rejected: Rejected | None) -> Iterator[Example]:
    import datasets

    rows = _load(source.hub, source.hub_config or None, split=source.split)
    if source.image not in (rows.features or {}):
        raise DataError(f"source {source.name!r}: {source.hub} has no column {source.image!r}")
    rows = rows.cast_column(source.image, datasets.Image(decode=False))
    for index, row in enumerate(rows):
        data = row[source.image]["bytes"] or Path(row[source.image]["path"]).read_bytes()
        key, captions = f"{source.hub}/{source.split}/{index}", _captions(source, row, source.hub)
        yield Example(key, data, captions, _quality(source, row, key))


READERS = {"shards": _read_shards, "table": _read_table, "hub": _read_hub}
