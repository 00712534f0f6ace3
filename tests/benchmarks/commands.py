"""Commands of the installed nanocap, as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NANOCAP = str(Path(sysconfig.get_path("scripts")) / "nanocap")


def command(arguments: Sequence[str]) -> str:
    """What a command of nanocap prints; its progress goes through."""
    done = subprocess.run([NANOCAP, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def scored(target: str, val: str, beams: int) -> dict[str, dict[str, float]]:
    """The figures of `nanocap eval` but METEOR, by key, each with `value`, `low` and `high`.

    Args:
        target: a bundle, a file of captions, or a teacher such as `student:CHECKPOINT`.
        val: shards (a glob).
    """
    options = ["--data", val, "--beams", str(beams), "--json", "--skip", "meteor"]
    found: dict[str, Any] = json.loads(command(["eval", target, *options]))
    figures: dict[str, dict[str, float]] = found["figures"]
    return figures
