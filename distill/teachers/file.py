"""Captions that somebody already has, as a teacher that knows photos by their keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from nanocap.distill.sources import photo_key
from nanocap.distill.teachers import Scored
from nanocap.distill.teachers.settings import DEFAULTS, Settings
from nanocap.errors import DataError, OptionError


class CaptionFile:
    """A black box: it has captions, in the order of their file, and nothing else.

    Args:
        path: JSON lines, as `nanocap eval` reads them and `nanocap caption --json` writes them:
            `image`, the photo's key or its path in the folder of photos, and `caption`, a text, or
            `captions`, a list of them. Lines of one photo are joined; captions that are empty are
            passed over, and so are lines with `error` instead.
    Raises:
        DataError: the file cannot be read, or a line of it is something else.
    """

    def __init__(self, path: Path):
        self.path, self.name = path, f"file:{path}"
        self._texts: dict[str, dict[str, None]] = {}  # dictionaries, as sets that keep the order
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: captions cannot be read ({error})") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                key, texts = _row(line, f"{path}, line {number}")
                self._texts.setdefault(key, {}).update(dict.fromkeys(texts))
        if not any(self._texts.values()):
            raise DataError(f"{path}: no captions in it")
        for key, found in list(self._texts.items()):
            self._texts.setdefault(photo_key(key), found)  # of a folder of photos

    def caption_keyed(
        self, keys: Sequence[str], images: Sequence[Image.Image], n: int
    ) -> list[list[Scored]]:
        """The first `n` different captions of each photo; none of one that the file leaves out."""
        return [[Scored(text, 0.0) for text in list(self._texts.get(key, ()))[:n]] for key in keys]


def _row(line: str, where: str) -> tuple[str, list[str]]:
    """The key and the captions of a line."""
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict) or not isinstance(row.get("image"), str):
        raise DataError(f'{where}: needs "image", the key of a photo')
    found = row.get("captions", row.get("caption", [] if "error" in row else None))
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f'{where}: needs "caption", a text, or "captions", a list of texts')
    return row["image"], [" ".join(text.split()) for text in texts if text.strip()]


def load(rest: str, settings: Settings = DEFAULTS) -> CaptionFile:
    """`file:CAPTIONS.jsonl`.

    Raises:
        OptionError: it is no `.jsonl` file.
        DataError: the file cannot be read, or a line of it is something else.
    """
    path = Path(rest)
    if path.suffix.lower() != ".jsonl":
        raise OptionError(f'file:{rest}: captions are a .jsonl file, "image" and "caption" a line')
    return CaptionFile(path)
