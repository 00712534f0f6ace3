"""The distribution as a person meets it: built, installed in an empty environment, run offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
PHOTO = ROOT / "samples" / "photos" / "cat.jpg"
FOLDERS = {"nanocap": "nanocap"} | {f: f"nanocap/{f}" for f in ("runtime", "distill", "convert")}
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
INSTALLER = {"pip", "setuptools", "_distutils_hack", "pkg_resources", "distutils-precedence.pth"}
LIMIT_BYTES = 185_000_000

TORCH = {"torch", "torchvision", "tokenizers", "transformers"}
NETWORK_CLIENTS = {
    *("aiohttp", "anyio", "botocore", "fsspec", "grpcio", "h11", "hf-xet", "httpcore", "httpcore2"),
    *("httplib2", "httpx", "httpx2", "huggingface-hub", "niquests", "pycurl", "requests"),
    *("tornado", "urllib3", "websocket-client", "websockets"),
}

# Python raises an audit event for each socket and each name that is looked up; this hook refuses.
OFFLINE = """
import sys
def refuse(event, args):
    if event.startswith("socket."):
        raise PermissionError(f"offline: {event}")
sys.addaudithook(refuse)
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the commands that it holds."""

    folder: Path

    def command(self, name: str) -> Path:
        return self.folder / ("Scripts" if sys.platform == "win32" else "bin") / name

    def run(self, name: str, *arguments: str | Path) -> str:
        """Standard output of a command, run outside of the checkout."""
        command = [str(self.command(name)), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(self, *arguments: str | Path) -> None:
        self.run("python", "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, *arguments)

    def caption(self) -> str:
        (line,) = self.run("nanocap", "caption", "--json", PHOTO).splitlines()
        record = json.loads(line)
        assert record["image"] == str(PHOTO)
        assert 0 < record["confidence"] <= 1
        return str(record["caption"])


def environment(folder: Path, python: str | Path = sys.executable) -> Environment:
    subprocess.run([str(python), "-m", "venv", str(folder)], check=True)
    return Environment(folder)


def interpreter(version: str) -> Path | None:
    """Python of this version, as a command or below pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    below = sorted(root.glob(f"{version}.*/bin/python"))
    found = below[-1] if below else shutil.which(f"python{version}")
    return Path(found) if found else None


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the distribution is made of: building leaves files behind."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(checkout)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment into which the wheel was installed and nothing else."""
    bare = environment(tmp_path_factory.mktemp("bare"))
    bare.install(wheel)
    return bare


@pytest.fixture(scope="module")
def sentence() -> str:
    """What the copy under test says about the sample photo."""
    from nanocap import Captioner

    return Captioner()(str(PHOTO)).text


def test_the_sample_photo_gets_a_sentence_about_it(sentence: str) -> None:
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert "cat" in sentence.lower().rstrip(".").split()


def test_a_caption_opens_no_socket() -> None:
    code = f"{OFFLINE}from nanocap.__main__ import main\nsys.argv[0] = 'nanocap'\nmain()"
    command = [sys.executable, "-c", code, "caption", str(PHOTO)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_hook_that_refuses_sockets_works() -> None:
    code = f"{OFFLINE}import socket\nsocket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "PermissionError: offline: socket." in done.stderr


def test_a_checkout_can_be_imported_where_one_stands(checkout: Path) -> None:
    code = "from nanocap import Captioner; import nanocap.runtime as r; print(r.__file__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(checkout)


def test_a_checkout_runs_as_a_module_where_one_stands(checkout: Path, sentence: str) -> None:
    command = [sys.executable, "-m", "nanocap", "caption", str(PHOTO)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{sentence}\n"), done.stderr


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages(checkout: Path, wheel: Path) -> None:
    expected = {
        (Path(target) / path.relative_to(checkout / folder)).as_posix()
        for folder, target in FOLDERS.items()
        for path in (checkout / folder).rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert "nanocap/models/nano-s/manifest.json" in held
    assert "nanocap/py.typed" in held


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment_captions(bare: Environment, sentence: str) -> None:
    assert bare.caption() == sentence
    assert bare.run("python", "-m", "nanocap", "caption", PHOTO) == f"{sentence}\n"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_the_wheel_captions_with_each_python(
    version: str, wheel: Path, tmp_path: Path, sentence: str
) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is missing here")
    clean = environment(tmp_path / version, python)
    clean.install(wheel)
    assert clean.run("python", "--version").startswith(f"Python {version}.")
    assert clean.caption() == sentence
    lines = clean.run("nanocap", "caption", PHOTO.parent).splitlines()
    assert [line.split("\t")[1] for line in lines] == sample_sentences()


def sample_sentences() -> list[str]:
    from nanocap import Captioner

    return [one.text for one in Captioner()(sorted(map(str, PHOTO.parent.glob("*.jpg"))))]


@pytest.mark.slow
def test_an_editable_install_captions(checkout: Path, tmp_path: Path, sentence: str) -> None:
    editable = environment(tmp_path / "editable")
    editable.install("--editable", checkout)
    code = "import nanocap.runtime as r; print(r.__file__)"
    assert Path(editable.run("python", "-c", code).strip()).is_relative_to(checkout)
    assert editable.caption() == sentence


@pytest.mark.slow
def test_a_bare_install_has_no_torch_and_no_network_client(bare: Environment) -> None:
    listed = json.loads(bare.run("python", "-m", "pip", "list", "--format", "json"))
    names = {entry["name"].lower().replace("_", "-") for entry in listed}
    assert {"nanocap", "numpy", "onnxruntime", "pillow", "click"} <= names
    assert names & (TORCH | NETWORK_CLIENTS) == set()


@pytest.mark.slow
def test_a_bare_install_weighs_at_most_185_megabytes(bare: Environment) -> None:
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(bare.run("python", "-c", where).strip())
    held = [
        path
        for entry in packages.iterdir()
        if entry.name.split("-")[0] not in INSTALLER and entry.name not in INSTALLER
        for path in ([entry] if entry.is_file() else entry.rglob("*"))
        if path.is_file()
    ]
    total = sum(path.stat().st_size for path in held)
    assert len(held) > 100  # the sum is over an installation, not over an empty folder
    print(f"bare install: {total / 1e6:.1f} MB")  # shown by pytest -s, for the README
    assert total <= LIMIT_BYTES
