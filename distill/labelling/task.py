"""A task: photos, the folder for their labels, and what of it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanocap.distill.labelling.options import Options
from nanocap.distill.labelling.photos import PhotoShards
from nanocap.distill.labelling.plan import write_manifest
from nanocap.distill.labelling.shards import finished


@dataclass(frozen=True)
class Labelled:
    """What a folder of labels holds after a run.

    Attributes:
        left_out: why, by key, for every photo without a row.
        manifest: as it was written.
    """

    left_out: Mapping[str, str]
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """Photos that are to be labelled into the folder `out`, so many a file."""

    photos: PhotoShards
    out: Path
    options: Options = Options()  # noqa: RUF009 - frozen

    @property
    def files(self) -> int:
        """How many files of labels there will be."""
        return -(-len(self.photos) // self.options.shard)

    @property
    def ours(self) -> range:
        """The indices of the files of labels that are our part."""
        return range(self.options.part[0] - 1, self.files, self.options.part[1])

    def size_of(self, index: int) -> int:
        """Photos of a file of labels."""
        return min(self.options.shard, len(self.photos) - index * self.options.shard)

    def unfinished(self, skip: Callable[[int], None] = lambda count: None) -> list[int]:
        """Our files that are still to be made; `skip` is told of the photos of the others."""
        todo = []
        for index in self.ours:
            if finished(self.out, index, self.options.format):
                skip(self.size_of(index))
            else:
                todo.append(index)
        return todo

    def conclude(self) -> Labelled:
        """Write the manifest of what is there, and say what was left out of our files."""
        summaries = [finished(self.out, index, self.options.format) for index in range(self.files)]
        left_out = {
            key: reason
            for index in self.ours
            for key, reason in ((summaries[index] or {}).get("left_out", {})).items()
        }
        return Labelled(left_out, write_manifest(self.out, summaries))
