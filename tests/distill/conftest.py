"""What the tests of training share: drawn photos with captions, a recipe over them, a corpus."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw

from nanocap.cli import group
from nanocap.distill.data.corpus import Corpus, prepare
from nanocap.distill.recipes.recipe import Recipe, load_recipe
from nanocap.student import Student

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle")

RECIPE = """
name = "shapes"
preset = "nano-xs"
seed = 3
imagenet = ""
monitor = "shapes"

[student]
image_size = 64
width = 32
heads = 2
encoder_blocks = 1
decoder_layers = 1
max_tokens = 16
keep = [8]

[data]
vocabulary = 80

[[data.sources]]
name = "shapes"
table = "captions.jsonl"
aside = 6
weight = 1.5
licence = "drawn by a test"

[[stages]]
name = "maps"
kind = "supervised"
steps = 9
batch = 8
captions = 2
views = 2
warmup = 2
checkpoint = 4
evaluate = 5

[[stages]]
name = "end-to-end"
kind = "supervised"
steps = 6
train = ["decoder", "encoder", "upper", "lower"]
batch = 8
warmup = 2
checkpoint = 4
evaluate = 0

[[stages]]
name = "self-critical"
kind = "self-critical"
steps = 6
batch = 4
samples = 3
dropout = 0.0
warmup = 2
checkpoint = 4
evaluate = 0
views = 1
"""


def draw(shape: str, colour: str, background: str, size: tuple[int, int]) -> Image.Image:
    """One coloured shape in the middle of a plain photo."""
    image = Image.new("RGB", size, background)
    pen, (width, height) = ImageDraw.Draw(image), size
    box = (width * 0.25, height * 0.25, width * 0.75, height * 0.75)
    if shape == "circle":
        pen.ellipse(box, colour)
    elif shape == "square":
        pen.rectangle(box, colour)
    else:
        pen.polygon([(box[0], box[3]), (box[2], box[3]), (width / 2, box[1])], colour)
    return image


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As the processes that the tests start: then sums are added in the same order everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 36 drawn photos and `captions.jsonl`, two captions a photo."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "photos").mkdir()
    lines = []
    for colour, shape, background in product(COLOURS, SHAPES, COLOURS):
        if colour != background:
            name = f"photos/{colour}-{shape}-on-{background}.png"
            draw(shape, colour, background, (80, 60)).save(folder / name)
            captions = [
                f"A {colour} {shape} on a {background} background.",
                f"There is a {colour} {shape} before {background}",
            ]
            lines.append(json.dumps({"image": name, "captions": captions}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def recipe_text() -> str:
    return RECIPE


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Writes the recipe of the drawn photos with replacements, and says where."""

    def write(*replacements: tuple[str, str], stages: int = 3) -> Path:
        head, *bodies = RECIPE.split("[[stages]]")
        text = "[[stages]]".join([head, *bodies[:stages]])
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "recipe.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return load_recipe(path)


@pytest.fixture(scope="session")
def corpus(recipe: Recipe, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The drawn photos, prepared. Tests only read it."""
    return prepare(recipe, drawn, tmp_path_factory.mktemp("cache"))


@dataclass(frozen=True)
class Program:
    """`nanocap distill`: as a process of its own, or in this one for what tells more there."""

    data: Path
    cpus: int = 1

    def start(self, recipe: Path, out: Path, *more: str) -> subprocess.Popen[str]:
        launch = ["-m"] if self.cpus == 1 else ["-m", "accelerate.commands.launch", *self._launch()]
        command = [
            *(sys.executable, *launch, "nanocap", "distill", str(recipe)),
            *("--out", str(out), "--data", str(self.data), "--precision", "fp32", *more),
        ]
        # one thread each: the sums stay the same, and other work on the machine goes on
        settings = {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command,
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, recipe: Path, out: Path, *more: str) -> str:
        """Everything that it printed; it must succeed."""
        process = self.start(recipe, out, *more)
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, printed
        return printed

    def invoke(self, recipe: Path, out: Path, *more: str) -> Result:
        """The command in this process: in fp32, since Accelerate allows one precision a process."""
        arguments = ["distill", str(recipe), "--out", str(out), "--data", str(self.data), *more]
        return CliRunner().invoke(group, [*arguments, "--precision", "fp32"])

    def _launch(self) -> list[str]:
        processes = ["--cpu", "--num_processes", str(self.cpus), "--num_machines", "1"]
        plain = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
        return [*processes, *plain, "-m"]


@pytest.fixture(scope="session")
def program(drawn: Path) -> Program:
    return Program(drawn)


@pytest.fixture
def checkpoints(corpus: Corpus, recipe: Recipe, tmp_path: Path) -> list[Path]:
    """Two finished students that share the corpus's tokenizer, and tell the photos apart."""
    paths = []
    for seed in range(2):
        torch.manual_seed(seed)
        paths.append(tmp_path / f"{seed}.safetensors")
        header = {"tokenizer": corpus.tokenizer.to_str(), "training": f'{{"seed": {seed}}}'}
        student = Student(recipe.dimensions())
        with torch.no_grad():  # as drawn, its trunk would let nothing of a photo through
            for weight in student.encoder.trunk.parameters():
                weight.mul_(2)
        student.save(paths[-1], header)
    return paths


@pytest.fixture
def shards(tmp_path: Path) -> Callable[[dict[str, Image.Image]], str]:
    """Writes photos as WebDataset shards, and says what they are called."""

    def write_shard(photos: dict[str, Image.Image]) -> str:
        with tarfile.open(tmp_path / "in.tar", "w") as tar:
            for key, photo in photos.items():
                buffer = io.BytesIO()
                photo.save(buffer, "PNG")
                for name, data in ((f"{key}.png", buffer.getvalue()), (f"{key}.json", b"{}")):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
        return str(tmp_path / "in.tar")

    return write_shard
