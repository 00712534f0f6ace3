"""Labels on disk: a file of rows, a log of decisions and a summary for every so many photos.

The summary is written last and says that the others are whole, so a run that is killed at any
moment leaves a file of labels either finished or to be made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanocap.distill.labelling.decision import Decision
from nanocap.distill.labelling.photos import Photo
from nanocap.errors import DataError

DECISIONS, SUMMARY = "decisions.jsonl", "json"


class TarRows:
    """WebDataset: `KEY.jpg` (png, webp) as it came, and `KEY.json`."""

    def __init__(self, path: Path):
        self._tar = tarfile.open(path, "w")  # noqa: SIM115 - closed by `close`

    def add(self, photo: Photo, suffix: str, decision: Decision) -> None:
        """Two entries more, with no time in them, so that equal rows are equal bytes."""
        row = json.dumps({"key": photo.key, "source": "teacher", **decision.to_row()})
        for name, data in (
            (f"{photo.key}.{suffix}", photo.data),
            (f"{photo.key}.json", row.encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            self._tar.addfile(entry, io.BytesIO(data))

    def close(self) -> None:
        """Write the end mark."""
        self._tar.close()


class ParquetRows:
    """Parquet with the encoded photos inside, in the column `image` as `datasets` keeps images."""

    def __init__(self, path: Path):
        import pyarrow as pa
        import pyarrow.parquet

        numbers, texts = pa.list_(pa.float64()), pa.list_(pa.string())
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {
            **{"key": pa.string(), "image": image, "captions": texts, "quality": pa.string()},
            **{"origins": texts, "teachers": texts},
            **{"scores": numbers, "support": numbers, "match": numbers},
        }
        self._schema = pa.schema(list(columns.items()))
        self._table = pa.Table
        self._file = pyarrow.parquet.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def add(self, photo: Photo, suffix: str, decision: Decision) -> None:
        """One row more, kept until `close`: a file is one row group."""
        image = {"bytes": photo.data, "path": f"{photo.key}.{suffix}"}
        self._rows.append({"key": photo.key, "image": image, **decision.to_row()})

    def close(self) -> None:
        """Write the rows and the footer."""
        self._file.write_table(self._table.from_pylist(self._rows, schema=self._schema))
        self._file.close()


ROWS: dict[str, type[TarRows | ParquetRows]] = {"tar": TarRows, "parquet": ParquetRows}  # by format


class LabelShard:
    """One file of labels while it is written, with its log.

    Args:
        out: folder of the labels.
        index: the how many-th file it is.
    Raises:
        DataError: (of all methods) it cannot be written, such as on a full disk. Then nothing
            stands under the final name.
    """

    def __init__(self, out: Path, index: int, format: str):
        self._out, self.stem = out, f"labels-{index:05}"
        self.path = out / f"{self.stem}.{format}"
        for stale in out.glob(f".{self.stem}.*.partial"):
            stale.unlink(missing_ok=True)
        self._levels: Counter[str] = Counter()
        self._origins: Counter[str] = Counter()
        self._left_out: dict[str, str] = {}
        self._log: list[str] = []
        try:
            self._rows = ROWS[format](self._partial(self.path))
        except OSError as error:
            raise self._refused(error) from error

    def add(self, photo: Photo, suffix: str, decision: Decision) -> None:
        """Write what was decided: a row, or why there is none; both are logged."""
        self._log.append(decision.to_json())
        if decision.left_out:
            self._left_out[photo.key] = decision.left_out
            return
        self._levels[decision.level] += 1
        self._origins.update(one.origin for one in decision.kept)
        try:
            self._rows.add(photo, suffix, decision)
        except OSError as error:
            raise self._refused(error) from error

    def commit(self, seconds: Mapping[str, float]) -> None:
        """Finish the file: rows, log and summary appear under their names, in this order.

        Args:
            seconds: spent on it, by stage.
        """
        log = self._out / f"{self.stem}.{DECISIONS}"
        try:
            self._rows.close()
            written = self._partial(self.path).read_bytes()
            summary = {
                "rows": self._levels.total(),
                "bytes": len(written),
                "sha256": hashlib.sha256(written).hexdigest(),
                "levels": dict(sorted(self._levels.items())),
                "origins": dict(sorted(self._origins.items())),
                "left_out": self._left_out,
                "seconds": {name: round(value, 6) for name, value in seconds.items()},
            }
            self._partial(log).write_text("\n".join([*self._log, ""]), encoding="utf-8")
            marked = self._out / f"{self.stem}.{SUMMARY}"
            self._partial(marked).write_text(json.dumps(summary), encoding="utf-8")
            for path in (self.path, log, marked):
                os.replace(self._partial(path), path)
        except OSError as error:
            raise self._refused(error) from error

    def abandon(self) -> None:
        """Take away what was begun."""
        for path in self._out.glob(f".{self.stem}.{os.getpid()}.*.partial"):
            path.unlink(missing_ok=True)

    def _partial(self, path: Path) -> Path:
        """Beside the final name; a process's own, as another may be at work in the folder."""
        return path.with_name(f".{self.stem}.{os.getpid()}{path.name[len(self.stem) :]}.partial")

    def _refused(self, error: OSError) -> DataError:
        self.abandon()
        reason = error.strerror or error
        return DataError(f"{self.path}: cannot be written ({reason}); run again to go on")


def finished(out: Path, index: int, format: str) -> dict[str, Any] | None:
    """The summary of a file of labels that is whole; None of one that is to be made."""
    stem = out / f"labels-{index:05}"
    try:
        summary: dict[str, Any] = json.loads(
            stem.with_suffix(f".{SUMMARY}").read_text(encoding="utf-8")
        )
        whole = stem.with_suffix(f".{format}").stat().st_size == summary["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return summary if whole else None
