"""Both pages in a browser without a network: complete, without errors, and not blank."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from nanocap.cli import group

PHOTOS = sorted((Path(__file__).parents[4] / "samples" / "photos").glob("*.jpg"))
COMMAND = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
OFFLINE = ("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking")


def browse(page: Path, *arguments: str) -> tuple[str, str]:
    """What the browser writes on its two outputs."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.fail("this test opens pages in Chromium: apt-get install -y chromium")
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run(
        [
            browser,
            *COMMAND,
            *OFFLINE,
            profile,
            "--enable-logging=stderr",
            *arguments,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return done.stdout, done.stderr


def check_in_browser(page: Path) -> str:
    """The page's elements once its script has run."""
    dom, errors = browse(page, "--dump-dom")
    assert "CONSOLE" not in errors, errors
    assert dom.rstrip().endswith("</html>")
    for width in (400, 1400):
        shot = page.parent / f"{width}.png"
        browse(page, f"--screenshot={shot}", f"--window-size={width},1600")
        with Image.open(shot) as image:
            assert image.width == width
            pixels = np.asarray(image.convert("L"))
        dark = (pixels < 128).mean()
        assert 0.002 < dark < 0.6, f"{shot} is blank or dark"
    return dom


@pytest.mark.slow
def test_the_eval_page(tmp_path: Path) -> None:
    table = tmp_path / "captions.jsonl"
    lines = [
        {"image": str(path), "captions": [f"A photo of a {path.stem}.", "<b>something</b>"]}
        for path in PHOTOS
    ]
    table.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    options = [
        "--data",
        table,
        "--skip",
        "meteor",
        "--skip",
        "spice",
        "--report",
        tmp_path / "page",
    ]
    result = CliRunner().invoke(group, ["eval", *map(str, options)])
    assert result.exit_code == 0, result.output
    dom = check_in_browser(tmp_path / "page" / "index.html")
    assert dom.count("<img ") == len(PHOTOS)
    assert "CIDEr" in dom
    buttons = re.findall(r"<button [^>]*>", dom)
    assert len(buttons) > 4 * len(PHOTOS)
    # the script ran: one word a caption can be reached by Tab, the others by arrows
    assert sum('tabindex="0"' in button for button in buttons) == len(PHOTOS)
    assert sum('tabindex="-1"' in button for button in buttons) == len(buttons) - len(PHOTOS)


@pytest.mark.slow
def test_the_bench_page(tmp_path: Path) -> None:
    options = ["--quick", "--repeat", "1", "--threads", "1", "--report", str(tmp_path / "page")]
    result = CliRunner().invoke(group, ["bench", *options])
    assert result.exit_code == 0, result.output
    dom = check_in_browser(tmp_path / "page" / "index.html")
    assert dom.count("<svg ") == 3
    assert "Roofline" in dom
    assert "<table" in dom
