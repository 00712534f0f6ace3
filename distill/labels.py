"""Photos labelled by a teacher, as WebDataset shards that a recipe names like any other source."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from PIL import Image

from nanocap.distill.augment import decode
from nanocap.distill.sources import Example
from nanocap.distill.teachers import KeyedTeacher, Teacher, ask
from nanocap.errors import DataError, ImageError

SUFFIXES = {"JPEG": "jpg", "WEBP": "webp", "PNG": "png"}


def label(
    teacher: Teacher | KeyedTeacher,
    photos: Sequence[Example],
    out: Path,
    captions: int = 5,
    batch: int = 64,
    shard: int = 1024,
    step: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Write `labels-NNNNN.tar` below `out`: each photo as it was, and the teacher's captions.

    A shard appears whole or not at all, and one that is there is not made again: a run that was
    killed ends with the rows of one that was not.

    Args:
        captions: at most so many a photo.
        batch: photos that the teacher sees at once.
        shard: photos a file.
        step: told how many more photos are done.
    Returns:
        keys of the photos that are left out: they cannot be read, or have no caption.
    Raises:
        DataError: `out` holds the labels of other photos or of another teacher.
    """
    out.mkdir(parents=True, exist_ok=True)
    plan = {
        "teacher": teacher.name,
        "captions": captions,
        "shard": shard,
        "photos": [photo.key for photo in photos],
    }
    _claim(out / "plan.json", plan)
    left_out: list[str] = []
    rows = iter(photos)
    for index in range(-(-len(photos) // shard)):
        path = out / f"labels-{index:05}.tar"
        ours = list(islice(rows, shard))
        if path.exists():
            with tarfile.open(path) as tar:
                done = {Path(name).stem for name in tar.getnames()}
            left_out += [photo.key for photo in ours if photo.key not in done]
            step(len(ours))
            continue
        partial = path.with_name(f".{path.name}.partial")
        with tarfile.open(partial, "w") as tar:
            for first in range(0, len(ours), batch):
                part = ours[first : first + batch]
                for photo, suffix, texts in _captioned(teacher, part, captions, left_out):
                    _add(tar, f"{photo.key}.{suffix}", photo.image)
                    row = {"captions": texts, "source": "teacher", "teacher": teacher.name}
                    _add(tar, f"{photo.key}.json", json.dumps(row).encode())
                step(len(part))
        os.replace(partial, path)
    return left_out


def _claim(path: Path, plan: dict[str, object]) -> None:
    text = json.dumps(plan)
    if not path.exists():
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    elif path.read_text(encoding="utf-8") != text:
        raise DataError(f"{path}: labels of other photos or another teacher; choose a new --out")


def _captioned(
    teacher: Teacher | KeyedTeacher,
    photos: Sequence[Example],
    captions: int,
    left_out: list[str],
) -> Iterator[tuple[Example, str, list[str]]]:
    read: list[tuple[Example, str, Image.Image]] = []
    for photo in photos:
        try:
            image = decode(photo.image)
            with Image.open(io.BytesIO(photo.image)) as stored:
                suffix = SUFFIXES[stored.format or ""]
            read.append((photo, suffix, image))
        except (ImageError, KeyError):  # damaged, or of a format that shards do not hold
            left_out.append(photo.key)
    keys, images = [photo.key for photo, _, _ in read], [image for _, _, image in read]
    found = ask(teacher, keys, images, captions) if read else []
    for (photo, suffix, _), scored in zip(read, found, strict=True):
        if scored:
            yield photo, suffix, [one.text for one in scored]
        else:
            left_out.append(photo.key)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
