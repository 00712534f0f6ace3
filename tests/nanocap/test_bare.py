"""Every verb on a bare install: its help, and which extra it says is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nanocap.cli import VERBS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
# With it only what pyproject.toml lists as dependencies can be imported, and what they stand on.
BARE = """
import sys
held = {'nanocap', 'numpy', 'onnxruntime', 'PIL', 'click', 'flatbuffers', 'packaging', 'google'}
class Bare:
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        if top not in held | sys.stdlib_module_names and not top.startswith('_'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Bare())
from nanocap.__main__ import main
main()
"""
WORK = {  # arguments with which a verb sets to work, and the extras that bring all it needs
    "eval": (["--data", "photos.jsonl"], "distill,eval"),
    "calibrate": (["a", "--data", "photos.jsonl"], "distill,eval"),
    "bench": (["--quick"], "eval"),
    "label": (["--teacher", "hf:a", "--images", ".", "--out", "out"], "distill"),
    "distill": (["recipe.toml", "--out", "out"], "distill"),
    "pack": (["recipe.toml", "--out", "out"], "distill"),
    "average": (["a.safetensors", "--out", "out"], "distill"),
    "prune": (["a.safetensors", "--keep", "0.5", "--out", "out"], "distill"),
    "scorer": (["recipe.toml", "--out", "out"], "distill"),
    "convert": (["a.safetensors", "--out", "out"], "convert"),
    "parity": ([str(ROOT), "--data", "photos.jsonl"], "convert,distill,eval"),
    "fuse": (["--out", "out.onnx"], "convert"),
}


def bare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BARE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize("verb", VERBS)
def test_help_needs_nothing(verb: str, tmp_path: Path) -> None:
    shown = bare(tmp_path, verb, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"Usage: nanocap {verb} ") or "Usage: -c" in shown.stdout
    assert "Options:" in shown.stdout
    assert "--help" in shown.stdout


@pytest.mark.parametrize("verb", WORK)
def test_what_is_missing_is_one_line_with_all_that_the_verb_needs(
    verb: str, tmp_path: Path
) -> None:
    arguments, extras = WORK[verb]
    done = bare(tmp_path, verb, *arguments)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"nanocap: nanocap {verb} needs ")
    assert line.endswith(f": run pip install 'nanocap[{extras}]'")
    assert (done.returncode, done.stdout) == (1, "")
    package = line.partition("the package ")[2].partition(" ")[0]
    assert package in brought(extras.split(","))


def test_every_verb_that_needs_more_is_tried() -> None:
    assert {name: ",".join(verb.extras) for name, verb in VERBS.items() if verb.extras} == {
        name: extras for name, (_, extras) in WORK.items()
    }


def brought(extras: list[str]) -> set[str]:
    """Names of the packages that extras bring, and of those that they stand on."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = [line for extra in extras for line in table["project"]["optional-dependencies"][extra]]
    names = {line.partition(">")[0].partition("[")[0].strip().lower() for line in lines}
    return names | {"markupsafe"}  # of jinja2
