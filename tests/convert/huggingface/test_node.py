"""transformers.js captions with a folder as the runtime does; run by `make test-node`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from nanocap.bundle.vocabulary import Presentation

pytestmark = pytest.mark.node
SCRIPT = Path(__file__).with_name("node") / "caption.mjs"


def test_node_says_what_the_runtime_says(
    folder: Path, photos: list[Path], captions: list[str]
) -> None:
    command = ["node", str(SCRIPT), str(folder), *map(str, photos)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [Presentation().sentence(text) for text in json.loads(done.stdout)] == captions
    assert done.stderr == ""  # transformers.js warns there of types that it does not know
