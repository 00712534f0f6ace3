"""What a user may say about labelling, apart from the teachers and the photos."""

from __future__ import annotations

from dataclasses import dataclass

from nanocap.errors import OptionError

FORMATS = ("tar", "parquet")
MOST_PARTS = 4096


@dataclass(frozen=True)
class Options:
    """How photos are labelled.

    Args:
        captions: at most so many that each teacher proposes for a photo, and that a row keeps.
        batch: photos that a teacher sees at once.
        shard: photos a file; what a killed run may have to do again.
        format: of the files: `tar` (WebDataset) or `parquet`.
        original: keys of a photo's `.json` that hold the text it came with, with commas between;
            empty to leave that text alone.
        part: `(i, n)`: only every n-th file, from the i-th, so that n processes share a folder.
    Raises:
        OptionError: a value is outside what it may be.
    """

    captions: int = 5
    batch: int = 64
    shard: int = 1024
    format: str = "tar"
    original: str = "captions"
    part: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        for name in ("captions", "batch", "shard"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.format not in FORMATS:
            raise OptionError(f"format {self.format!r} is not one of {', '.join(FORMATS)}")
        one, parts = self.part
        if not 1 <= one <= parts <= MOST_PARTS:
            raise OptionError(f"part {one}/{parts}: must be from 1/N to N/N, such as 2/8")
