"""The journal of a run: metrics as JSON lines, and their curves as a picture."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from nanocap.files.whole_file import whole_file


class Journal:
    """`metrics.jsonl` in the run's folder, cut back to the checkpoint that a run resumes from."""

    def __init__(self, folder: Path, stage: int, step: int):
        self.path = folder / "metrics.jsonl"
        self.lines = [
            line for line in self._read() if (line["stage"], line["step"]) < (stage, step)
        ]
        with whole_file(self.path) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in self.lines))

    def add(self, **line: Any) -> None:
        """Append one line."""
        self.lines.append(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def draw(self) -> None:
        """Write `curves.png`: loss, reward, and loss and CIDEr of the photos set aside, by step."""
        _keep_fonts_elsewhere()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        keys = ("loss", "reward", "aside_loss", "cider")
        shown = [key for key in keys if any(key in line for line in self.lines)]
        if not shown:
            return
        figure = Figure(figsize=(4.5 * len(shown), 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        starts = self._stage_starts()
        for axis, key in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            for stage, start in starts.items():
                points = [line for line in self.lines if line["stage"] == stage and key in line]
                steps = [start + line["step"] for line in points]
                axis.plot(steps, [line[key] for line in points], linewidth=0.8)
            axis.set(title=key, xlabel="step")
            axis.grid(alpha=0.3)
        with whole_file(self.path.with_name("curves.png")) as partial:
            figure.savefig(partial, format="png", dpi=110)

    def _stage_starts(self) -> dict[int, int]:
        starts, total = {}, 0
        for stage in sorted({line["stage"] for line in self.lines}):
            starts[stage] = total
            total += max(line["step"] for line in self.lines if line["stage"] == stage) + 1
        return starts

    def _read(self) -> list[dict[str, Any]]:
        lines = []
        if self.path.exists():
            for text in self.path.read_text().splitlines():
                try:
                    lines.append(json.loads(text))
                except ValueError:  # the line that a kill cut short
                    break
        return lines


def _keep_fonts_elsewhere() -> None:
    """matplotlib would keep its list of fonts below the home folder; this one ends with us."""
    if "MPLCONFIGDIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="nanocap-fonts-")
        os.environ["MPLCONFIGDIR"] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
