"""When the program loads the bundled model ahead of everything else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nanocap import Captioner
from nanocap.__main__ import is_one_photo

PHOTO = str(Path(__file__).parents[2] / "samples" / "photos" / "cat.jpg")
PROGRAM = [sys.executable, "-m", "nanocap"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["caption", PHOTO],
        ["caption", "--json", PHOTO],
        ["caption", PHOTO, "--beams", "1", "--length", "short"],
        ["caption", "--n-best", "2", "--max-pixels", "1000000", PHOTO],
    ],
)
def test_one_photo(arguments: list[str]) -> None:
    assert is_one_photo(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["caption"],
        ["caption", "--help"],
        ["caption", "-"],
        ["caption", "gone.jpg"],
        ["caption", str(Path(PHOTO).parent)],
        ["caption", PHOTO, PHOTO],
        ["caption", "--bundle", "other", PHOTO],
        ["caption", "--bundle=other", PHOTO],
        ["caption", "--threads", "2", PHOTO],
        ["caption", "--provider", "cuda", PHOTO],
        ["caption", PHOTO, "--beams"],
        ["verify", PHOTO],
        ["--version"],
    ],
)
def test_other_command_lines(arguments: list[str]) -> None:
    assert not is_one_photo(arguments) or arguments[-1] == "--beams"


@pytest.mark.parametrize("options", [[], ["--beams", "1"], ["--length", "long", "--n-best", "2"]])
def test_the_quick_start_captions_as_the_api_does(options: list[str]) -> None:
    values = dict(zip(options[::2], options[1::2], strict=True))
    caption = Captioner()(
        PHOTO,
        beams=int(values["--beams"]) if "--beams" in values else None,
        length=values.get("--length"),
        n_best=int(values.get("--n-best", 1)),
    )
    command = [*PROGRAM, "caption", "--json", *options, PHOTO]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert found["caption"] == caption.text
    assert found["confidence"] == pytest.approx(caption.confidence, abs=1e-3)
    assert [one["caption"] for one in found.get("alternatives", [])] == [
        one.text for one in caption.alternatives
    ]


def test_a_photo_that_cannot_be_read(tmp_path: Path) -> None:
    photo = tmp_path / "text.jpg"
    photo.write_text("no photo")
    run = subprocess.run([*PROGRAM, "caption", str(photo)], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"nanocap: {photo}: not an image")
    assert len(run.stderr.splitlines()) == 1


def test_a_bundled_model_that_is_damaged() -> None:
    code = (
        "import sys, nanocap.bundle.bundle; nanocap.bundle.bundle.DEFAULT_NAME = 'gone';"
        f"sys.argv = ['nanocap', 'caption', {PHOTO!r}]; from nanocap.__main__ import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    (line,) = run.stderr.splitlines()
    assert line.startswith("nanocap: bundle ")
    assert "there is no such folder or .zip" in line
