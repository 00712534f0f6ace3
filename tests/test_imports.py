"""Which part may import which: the arrows of the design, read off the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "nanocap": ROOT / "nanocap",
    "nanocap.runtime": ROOT / "runtime",
    "nanocap.distill": ROOT / "distill",
    "nanocap.convert": ROOT / "convert",
}
TRAINING = {"torch", "tokenizers", "safetensors", "accelerate", "datasets", "transformers"}

# What a part must never import, at the top of a file or inside a call. A file belongs to the
# part with the longest name that fits.
FORBIDDEN = {
    "nanocap": TRAINING
    | {"nanocap.student", "nanocap.scorer", "nanocap.distill", "nanocap.convert", "nanocap.cli"}
    | {"nanocap.runtime", "onnxruntime"},
    "nanocap.measure.bench": TRAINING
    | {"nanocap.student", "nanocap.scorer", "nanocap.distill", "nanocap.convert", "nanocap.cli"},
    "nanocap.measure.report": TRAINING
    | {"nanocap.student", "nanocap.scorer", "nanocap.distill", "nanocap.convert", "nanocap.cli"},
    "nanocap.scorer": {"nanocap.runtime", "nanocap.distill", "nanocap.convert", "nanocap.cli"},
    "nanocap.interop": {"nanocap.runtime", "nanocap.distill", "nanocap.convert", "nanocap.cli"},
    "nanocap.student": {"nanocap.runtime", "nanocap.distill", "nanocap.convert", "nanocap.cli"},
    "nanocap.runtime": TRAINING
    | {"nanocap.student", "nanocap.scorer", "nanocap.distill", "nanocap.convert", "nanocap.cli"},
    # ExecuTorch's binding for Python takes torch's tensors and nothing else
    "nanocap.runtime.engines.executorch": TRAINING - {"torch"}
    | {"nanocap.student", "nanocap.scorer", "nanocap.distill", "nanocap.convert", "nanocap.cli"},
    "nanocap.distill": {"nanocap.convert", "nanocap.cli", "onnx", "onnxruntime"},
    "nanocap.distill.labelling.evidence": {"nanocap.convert", "nanocap.cli", "onnx"},
    "nanocap.convert": {"nanocap.distill", "nanocap.cli"},
    "nanocap.__main__": set(),
    "nanocap.cli": set(),  # a verb imports the part that it starts
}


def source_files() -> Iterator[tuple[str, Path]]:
    """Each source file with the name that it is imported by."""
    for prefix, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((prefix, *parts)).removesuffix(".__init__"), path


def imported(tree: ast.Module, module: str, is_package: bool) -> Iterator[str]:
    """Every dotted name that a file imports; `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            # A lazy import by name is an arrow all the same.
            yield from (str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant))


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def wrong_arrows(module: str, names: Iterator[str]) -> list[str]:
    """The imports that the part to which `module` belongs must not have.

    The front door, `nanocap/__init__.py`, may name the runtime: it offers `Captioner`.
    """
    part = max((p for p in FORBIDDEN if inside(module, p)), key=len)
    forbidden = FORBIDDEN[part] - ({"nanocap.runtime"} if module == "nanocap" else set())
    return [f"{module} -> {n}" for n in names for f in forbidden if inside(n, f)]


def test_every_import_arrow_points_the_right_way() -> None:
    files = list(source_files())
    assert {name for name, _ in files} >= set(FOLDERS), "a folder of the design has no package"
    wrong = []
    for module, path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        wrong += wrong_arrows(module, imported(tree, module, path.name == "__init__.py"))
    assert wrong == []


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """What remains of a graph once everything that points at nothing has been taken away."""
    left = {name: targets - {name} for name, targets in arrows.items()}
    while True:
        done = {name for name, targets in left.items() if not targets & set(left)}
        if not done:
            return sorted(left)
        left = {name: targets for name, targets in left.items() if name not in done}


def test_no_file_and_no_room_imports_what_imports_it() -> None:
    """A room is a folder of a part: `nanocap.bundle`, `nanocap.distill.data`. What lies in a part
    itself (errors, entry points) is in no room."""
    known = {module: path for module, path in source_files()}
    files: dict[str, set[str]] = {module: set() for module in known}
    rooms: dict[str, set[str]] = {}

    def room(module: str) -> str | None:
        part = max((p for p in FOLDERS if inside(module, p)), key=len)
        name = ".".join(module.split(".")[: part.count(".") + 2])
        folder = FOLDERS[part] / name.rpartition(".")[2]
        return name if name != part and folder.is_dir() else None

    for module, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name in imported(tree, module, path.name == "__init__.py"):
            target = name if name in known else name.rpartition(".")[0]
            if target in known:
                files[module].add(target)
                ours, theirs = room(module), room(target)
                if ours and theirs:
                    rooms.setdefault(ours, set()).add(theirs)
    assert len(rooms) > 15
    assert circles(files) == []
    assert circles(rooms) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("nanocap.runtime.captioner", "import torch.nn", "torch.nn"),
        ("nanocap.runtime.captioner", "from .. import distill", "nanocap.distill"),
        ("nanocap.runtime.captioner", "def f():\n from nanocap import convert", "nanocap.convert"),
        (
            "nanocap.distill.training.trainer",
            "from nanocap.convert.onnx import export",
            "nanocap.convert",
        ),
        ("nanocap.bundle", "import importlib\nimportlib.import_module('torch')", "torch"),
        ("nanocap.student.encoder", "import torch", None),
        ("nanocap.runtime.captioner", "import torchless\nfrom .search import beam", None),
    ],
)
def test_the_check_itself_sees_each_kind_of_import(
    module: str, source: str, wrong: str | None
) -> None:
    found = wrong_arrows(module, imported(ast.parse(source), module, is_package=False))
    assert len(found) == (wrong is not None)
    assert all(f" -> {wrong}" in arrow for arrow in found)


def test_the_command_line_loads_no_training_package() -> None:
    """The verbs are imported without the parts that they start, so that a caption starts fast."""
    code = "import sys, nanocap, nanocap.cli, nanocap.runtime; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "nanocap" in loaded
    assert loaded & TRAINING == set()
