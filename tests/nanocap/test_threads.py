"""How threads wait, and how many there are at most."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nanocap.cli import group
from nanocap.cores import available_cores

ROOT = Path(__file__).parents[2]
FOLDERS = ("nanocap", "distill", "convert")  # runtime/ takes torch for its tensors alone
COMPUTE = {"torch", "accelerate", "transformers", "datasets", "onnxscript"}
COMPUTING = (
    "eval",
    "calibrate",
    "bench",
    "label",
    "distill",
    "scorer",
    "convert",
    "parity",
    "caption",
)
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def imports(file: Path) -> list[str]:
    """What a file imports, top packages in order; ours whole."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.lineno, node.module))
    return [name if "nanocap" in name else name.split(".")[0] for _, name in sorted(found)]


def test_every_door_to_torch_has_its_threads_sleep_first() -> None:
    doors = 0
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            if COMPUTE.isdisjoint(imports(file)):
                continue
            doors += 1
            packages = [parent / "__init__.py" for parent in file.parents if parent != ROOT]
            inside = [imports(one) for one in packages if one.is_file()]
            assert any("nanocap.threads" in names for names in inside), file
            for names in inside:
                first = min((names.index(one) for one in COMPUTE if one in names), default=None)
                assert first is None or "nanocap.threads" in names[:first], file
    assert doors > 50


@pytest.mark.parametrize("part", ["distill", "convert", "student", "scorer"])
@pytest.mark.parametrize("chosen", [None, "active"])
def test_the_environment_of_torch_and_of_what_it_starts(part: str, chosen: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    if chosen is not None:
        environment["OMP_WAIT_POLICY"] = chosen
    child = f"import os; print(*[os.environ.get(name) for name in {WAITING}])"
    code = (
        f"import nanocap.{part}, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [chosen or "passive", "0", "0"]


def test_a_caption_leaves_other_peoples_torch_alone() -> None:
    code = (
        f"import nanocap.runtime.captioner, os; print(*[n for n in {WAITING} if n in os.environ])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("verb", COMPUTING)
def test_every_verb_that_computes_takes_threads(verb: str) -> None:
    assert "--threads" in CliRunner().invoke(group, [verb, "--help"]).output


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """The other tests keep theirs."""
    torch: Any = pytest.importorskip("torch")
    from nanocap.convert.graphs import sessions

    before = torch.get_num_threads()
    yield
    sessions.use_threads(None)
    torch.set_num_threads(before)


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(group, list(arguments))


def test_more_threads_than_cores_are_lowered_with_a_word(tmp_path: Path) -> None:
    cores = available_cores()
    fp32 = ("--precision", "fp32")  # Accelerate allows one precision a process
    for verb, more in (("distill", fp32), ("scorer", fp32), ("convert", ())):
        result = invoked(verb, "gone", "--out", str(tmp_path / "out"), "--threads", "999", *more)
        lines = result.stderr.splitlines()
        assert lines[0] == f"nanocap: --threads 999: taking {cores}, one a core"
        assert "gone" in lines[-1]


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5"])
def test_threads_that_cannot_be(wrong: str, tmp_path: Path) -> None:
    result = invoked("distill", "gone", "--out", str(tmp_path), "--threads", wrong)
    assert result.exit_code == 2
    assert "Invalid value for '--threads'" in result.output


def test_torch_and_sessions_take_the_threads() -> None:
    torch: Any = pytest.importorskip("torch")
    from nanocap.convert.graphs import sessions
    from nanocap.student.devices import use_threads

    use_threads(1)
    assert torch.get_num_threads() == 1
    use_threads(None)
    assert torch.get_num_threads() == 1
    sessions.use_threads(2)
    assert torch.get_num_threads() == 2
    graph = sessions.onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[2] x) => (float[2] y) { y = Neg (x) }'
    )
    options = sessions.open_session(graph.SerializeToString()).get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
