"""Captions that somebody already has, as a teacher that knows photos by their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from nanocap.distill.data.keys import find_photos
from nanocap.distill.data.rows import read_captions
from nanocap.distill.teachers import Scored
from nanocap.distill.teachers.settings import DEFAULTS, Settings
from nanocap.errors import DataError, OptionError


class CaptionFile:
    """A black box: it has captions, in the order of their file, and nothing else.

    Lines of one photo are joined; captions that are empty are passed over. Raises DataError as
    `nanocap.distill.data.rows.read_captions` does, which reads the file, and where it has none.
    """

    def __init__(self, path: Path):
        self.path, self.name = path, f"file:{path}"
        self._texts: dict[str, dict[str, None]] = {}  # dictionaries, as sets that keep the order
        for line in read_captions(path):
            found = self._texts.setdefault(line.name, {})
            found.update(dict.fromkeys(text for text in line.texts if text))
        if not any(self._texts.values()):
            raise DataError(f"{path}: no captions in it")

    def expect(self, photos: Mapping[str, str], folders: Sequence[Path]) -> None:
        """Find each photo by whatever the file calls it. Raises DataError if none is found."""
        found = find_photos(list(self._texts), photos, folders)
        if photos and not found:
            raise DataError(no_photo(self.path, next(iter(self._texts)), next(iter(photos))))
        self._texts = {found.get(name, name): texts for name, texts in self._texts.items()}

    def caption_keyed(
        self, keys: Sequence[str], images: Sequence[Image.Image], n: int
    ) -> list[list[Scored]]:
        """The first `n` different captions of each photo; none of one that the file leaves out."""
        return [[Scored(text, 0.0) for text in list(self._texts.get(key, ()))[:n]] for key in keys]


def no_photo(path: Path, found: str, wanted: str) -> str:
    """What to say where a file of captions has none for any of the photos."""
    return (
        f"{path}: has no caption of any of the photos: it calls them such as {found!r}, they are"
        f" such as {wanted!r}; write keys or paths of theirs"
    )


def load(rest: str, settings: Settings = DEFAULTS) -> CaptionFile:
    """`file:CAPTIONS.jsonl`; raises OptionError for another suffix, and as `CaptionFile` does."""
    path = Path(rest)
    if path.suffix.lower() != ".jsonl":
        raise OptionError(f'file:{rest}: captions are a .jsonl file, "image" and "caption" a line')
    return CaptionFile(path)
