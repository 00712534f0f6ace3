"""The plan of a labelling: options, photos, the folder for the labels, and its manifest."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanocap import __version__
from nanocap.distill.labelling.photos import PhotoShards
from nanocap.distill.labelling.shards import ROWS, finished
from nanocap.distill.teachers import KeyedTeacher, Teacher
from nanocap.errors import DataError, OptionError
from nanocap.files.digest import file_digest

MOST_PARTS = 4096
PLAN, MANIFEST = "plan.json", "manifest.json"
SHOWN = 60  # characters of a value in an error


@dataclass(frozen=True)
class Options:
    """How photos are labelled.

    Raises:
        OptionError: a value is outside what it may be.
    """

    captions: int = 5  # at most so many that a teacher proposes for a photo, and that a row keeps
    batch: int = 64  # photos that a teacher sees at once
    shard: int = 1024  # photos a file; what a killed run may have to do again
    format: str = "tar"  # of the files: `tar` (WebDataset) or `parquet`
    # keys of a photo's `.json` with the text it came with, commas between; "" leaves it alone
    original: str = "captions"
    part: tuple[int, int] = (1, 1)  # (i, n): only every n-th file, from the i-th on

    def __post_init__(self) -> None:
        for name in ("captions", "batch", "shard"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.format not in ROWS:
            raise OptionError(f"format {self.format!r} is not one of {', '.join(ROWS)}")
        one, parts = self.part
        if not 1 <= one <= parts <= MOST_PARTS:
            raise OptionError(f"part {one}/{parts}: must be from 1/N to N/N, such as 2/8")


def make_plan(
    teachers: Sequence[Teacher | KeyedTeacher],
    photos: PhotoShards,
    options: Options,
    settings: Mapping[str, str],
    evidence: Sequence[Path],
) -> dict[str, Any]:
    """Everything that decides the rows, JSON-ready.

    Args:
        settings: of the teachers, such as their dtype.
        evidence: files of the scorer and the detector.
    """
    return {
        "nanocap": __version__,
        "teachers": [_identity(teacher.name) for teacher in teachers],
        "settings": dict(settings),
        "evidence": [_identity(str(path)) for path in evidence],
        "images": [[store.path.name, store.size, store.count] for store in photos.stores],
        "original": options.original,
        "captions": options.captions,
        "batch": options.batch,
        "shard": options.shard,
        "format": options.format,
    }


def claim(out: Path, plan: Mapping[str, Any]) -> None:
    """Make `out` the folder of this plan.

    Raises:
        DataError: it is the folder of another plan, or cannot be written.
    """
    path = out / PLAN
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write(path, plan)
            return
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    theirs, ours = read_plan(out), json.loads(json.dumps(plan))
    if theirs != ours:
        changes = _changes(theirs, ours)
        raise DataError(
            f"{out}: holds labels made otherwise ({changes}); ask for the same or take a new --out"
        )


def read_plan(out: Path) -> dict[str, Any]:
    """The plan of a folder.

    Raises:
        DataError: it has none that can be read.
    """
    path = out / PLAN
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise DataError(f"{path}: not the plan of a labelling; take a new --out") from error
    return plan if isinstance(plan, dict) else {}


def write_manifest(out: Path, summaries: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Write `manifest.json`: the plan, what came of it, and where the time went; and return it.

    Args:
        summaries: of all files in order; None of those that are not finished.
    Raises:
        DataError: it cannot be written.
    """
    plan = read_plan(out)
    done = [summary for summary in summaries if summary is not None]
    seconds: defaultdict[str, float] = defaultdict(float)
    levels: Counter[str] = Counter()
    origins: Counter[str] = Counter()
    for summary in done:
        for name, value in summary["seconds"].items():
            seconds[name] += value
        levels.update(summary["levels"])
        origins.update(summary["origins"])
    rows = sum(summary["rows"] for summary in done)
    left_out = sum(len(summary["left_out"]) for summary in done)
    total = seconds["total"]
    manifest = {
        "plan": plan,
        "complete": len(done) == len(summaries),
        "rows": rows,
        "left_out": left_out,
        "levels": dict(levels),
        "origins": dict(origins),
        "seconds": {name: round(value, 6) for name, value in seconds.items()},
        "photos_per_second": round((rows + left_out) / total, 3) if total else None,
        "teacher_share": round(seconds["propose"] / total, 4) if total else None,
        "files": [
            {
                "file": f"labels-{index:05}.{plan['format']}",
                "rows": summary["rows"],
                "bytes": summary["bytes"],
                "sha256": summary["sha256"],
            }
            for index, summary in enumerate(summaries)
            if summary is not None
        ],
    }
    _write(out / MANIFEST, manifest)
    return manifest


def _identity(name: str) -> dict[str, str]:
    """A teacher's name without folders, and the digests of the files that are named in it.

    Where they lie decides nothing: a run's folder may move together with its labels.
    """
    parts, found = [], {}
    for part in name.split(","):
        path = Path(part.removeprefix("file:"))
        parts.append(path.name if path.is_file() else part)
        if path.is_file():
            found[f"{len(parts)} {path.name}"] = file_digest(path)
    return {"name": ",".join(parts), **found}


def _changes(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    return "; ".join(
        f"{name} was {_shown(theirs.get(name))}, is {_shown(ours.get(name))}" for name in names
    )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _write(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(value, indent=1), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


@dataclass(frozen=True)
class Labelled:
    """What a folder of labels holds after a run."""

    left_out: Mapping[str, str]  # why, by key, for every photo without a row
    manifest: Mapping[str, Any]  # as it was written


@dataclass(frozen=True)
class Task:
    """Photos that are to be labelled into the folder `out`, so many a file."""

    photos: PhotoShards
    out: Path
    options: Options = Options()

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
