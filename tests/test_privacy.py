"""Nothing leaves the device: no file below the home folder, no look-up, no connection."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[1] / "samples"
PHOTO = SAMPLES / "photos" / "cat.jpg"
SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
WAIT = 20  # seconds after loading; ONNX Runtime looked its collector up after nine

CLI = "import sys; from nanocap.__main__ import main; sys.argv = ['nanocap', *sys.argv[1:]]; main()"
API = "import sys; from nanocap import Captioner; print(Captioner()(sys.argv[-1]))"
DOORS = {
    "command line": (CLI, ["caption", str(PHOTO)]),
    "Python": (API, [str(PHOTO)]),
    "verify": (CLI, ["verify"]),
    "convert's sessions": ("import nanocap.convert.graphs.sessions", []),
    "another library's folder": ("import nanocap.interop", []),
}


def quiet(home: Path) -> dict[str, str]:
    """An environment with another home folder, in which nobody has chosen anything."""
    # ONNX Runtime leaves machines alone that say they are a CI's
    chosen = {n: value for n, value in os.environ.items() if n not in (*SWITCHES, "CI")}
    return chosen | {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}


def written(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def test_reading_captions_and_drawing_curves_write_none_either(tmp_path: Path) -> None:
    """What `datasets` and matplotlib keep for themselves."""
    table, home = tmp_path / "captions.jsonl", tmp_path / "home"
    home.mkdir()
    shutil.copy(PHOTO, tmp_path)
    table.write_text('{"image": "cat.jpg", "caption": "a cat"}\n')
    code = (
        "from pathlib import Path\n"
        "from nanocap.distill.data.sources import read_source, source_of\n"
        f"(example,) = read_source(source_of({str(table)!r}), Path())\n"
        "from nanocap.distill.training.journal import Journal\n"
        f"journal = Journal(Path({str(tmp_path)!r}), 0, 0)\n"
        "journal.add(stage=0, step=1, loss=1.0); journal.draw()"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=quiet(home), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "curves.png").exists()
    assert written(home) == []


@pytest.mark.parametrize("door", DOORS)
def test_no_file_appears_below_the_home_folder(door: str, tmp_path: Path) -> None:
    code, arguments = DOORS[door]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=quiet(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert written(tmp_path) == []


def test_onnxruntime_alone_writes_there(tmp_path: Path) -> None:
    """So that the test above cannot pass because this version has nothing to hide."""
    subprocess.run([sys.executable, "-c", "import onnxruntime"], env=quiet(tmp_path), check=True)
    assert any("deviceid" in name for name in written(tmp_path))


@pytest.mark.parametrize("switch", SWITCHES)
def test_what_the_user_chose_stays(switch: str) -> None:
    code = f"import os, nanocap; print(os.environ[{switch!r}])"
    for chosen in ("0", "1", ""):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {switch: chosen},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{chosen}\n"


def test_a_program_that_imports_onnxruntime_first_is_told(tmp_path: Path) -> None:
    code = "import onnxruntime, nanocap"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=quiet(tmp_path), capture_output=True, text=True)
    assert "RuntimeWarning: onnxruntime was imported before nanocap" in done.stderr
    told = quiet(tmp_path) | {"ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, env=told, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("door", ["command line", "Python"])
def test_no_name_is_looked_up_in_twenty_seconds(door: str, tmp_path: Path) -> None:
    assert shutil.which("strace"), "install strace, such as by apt-get install strace"
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    code, _ = DOORS[door]
    command = ["strace", "-f", "-e", "trace=connect", "-o", str(trace), sys.executable, "-c"]
    if door == "Python":
        command += [f"{code}; import time; time.sleep({WAIT})", str(PHOTO)]
    else:  # it waits for more paths
        command += [code, "caption", "-"]
    program = subprocess.Popen(
        command, env=quiet(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(f"{PHOTO}\n")
    program.stdin.flush()
    time.sleep(WAIT)
    program.stdin.close()
    assert "cat" in program.stdout.read()
    assert program.wait() == 0
    assert re.findall(r"connect\(.*", trace.read_text()) == []
    assert written(home) == []
