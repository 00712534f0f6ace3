"""Photos labelled by a teacher, and a student that goes on from another."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from nanocap.cli import group
from nanocap.distill.corpus import prepare
from nanocap.distill.labels import label
from nanocap.distill.recipe import Recipe, Source
from nanocap.distill.sources import Example, read_photos, read_source
from nanocap.distill.start import Start
from nanocap.distill.teachers import Scored, load_teacher
from nanocap.errors import DataError, NanocapError, OptionError, RecipeError
from nanocap.student import Student


class Brightness:
    """A teacher for photos of one grey: says how bright they are, and counts what it was asked."""

    name = "brightness"

    def __init__(self, dies_after: int = 1000) -> None:
        self.asked, self.dies_after = 0, dies_after

    def caption(self, images: Sequence[Image.Image], n: int) -> list[list[Scored]]:
        if self.asked + len(images) > self.dies_after:
            raise KeyboardInterrupt
        self.asked += len(images)
        greys = [image.getpixel((0, 0)) for image in images]
        return [[Scored(f"grey {g[0]} way {i}", -float(i)) for i in range(n)] for g in greys]  # type: ignore[index]


def photos(count: int) -> list[Example]:
    found = []
    for index in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (index, index, index)).save(buffer, "PNG")
        found.append(Example(f"p{index}", buffer.getvalue(), ()))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_labels_are_a_source_of_their_photos(tmp_path: Path) -> None:
    given = photos(7)
    assert label(Brightness(), given, tmp_path, captions=2, batch=2, shard=3) == []
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == [
        f"labels-0000{index}.tar" for index in range(3)
    ]
    read = list(read_source(Source("labels", shards="labels-*.tar"), tmp_path))
    assert [(one.key, one.image) for one in read] == [(one.key, one.image) for one in given]
    assert [one.captions for one in read] == [
        (f"grey {index} way 0", f"grey {index} way 1") for index in range(7)
    ]


def test_a_run_that_was_killed_ends_with_the_same_files(tmp_path: Path) -> None:
    given = photos(9)
    label(Brightness(), given, tmp_path / "whole", batch=2, shard=3)
    with pytest.raises(KeyboardInterrupt):
        label(Brightness(dies_after=5), given, tmp_path / "killed", batch=2, shard=3)
    assert [path.name for path in (tmp_path / "killed").glob("labels-*.tar")] == [
        "labels-00000.tar"
    ]
    again = Brightness()
    label(again, given, tmp_path / "killed", batch=2, shard=3)
    assert again.asked == 6  # what stood in a whole shard was not captioned twice
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_unreadable_photos_are_named_also_after_a_resume(tmp_path: Path) -> None:
    given = photos(4)
    given[1] = replace(given[1], image=b"no photo")
    given[2] = replace(given[2], image=given[2].image[:40])
    for _ in range(2):
        assert label(Brightness(), given, tmp_path, shard=2) == ["p1", "p2"]
    with tarfile.open(tmp_path / "labels-00000.tar") as tar:
        assert tar.getnames() == ["p0.png", "p0.json"]


def test_a_folder_belongs_to_one_plan(tmp_path: Path) -> None:
    label(Brightness(), photos(2), tmp_path)
    with pytest.raises(DataError, match=r"labels of other photos.*--out"):
        label(Brightness(), photos(3), tmp_path)


def test_the_command_labels_with_an_ensemble(checkpoints: list[Path], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        for photo in photos(5):
            for name, data in ((f"{photo.key}.png", photo.image), (f"{photo.key}.json", b"{}")):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    assert [one.key for one in read_photos(str(tmp_path / "in.tar"))] == [f"p{i}" for i in range(5)]
    teacher = "ensemble:" + ",".join(map(str, checkpoints))
    arguments = ["--teacher", teacher, "--images", str(tmp_path / "in*.tar"), "--captions", "3"]
    result = CliRunner().invoke(
        group, ["label", *arguments, "--out", str(tmp_path / "labels"), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["photos"] == 5
    read = list(read_source(Source("labels", shards="labels/*.tar"), tmp_path))
    assert [one.key for one in read] == [f"p{index}" for index in range(5)]
    assert all(1 <= len(set(one.captions)) == len(one.captions) <= 3 for one in read)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("blip", "KIND:REST; kinds are student, hf, file, ensemble"),
        ("oracle:x", "KIND:REST"),
        ("student:nowhere.safetensors", "no such checkpoint"),
    ],
)
def test_teachers_that_cannot_be_loaded(spec: str, message: str) -> None:
    with pytest.raises(NanocapError, match=message):
        load_teacher(spec)


def test_a_student_needs_its_tokenizer(checkpoints: list[Path], recipe: Recipe) -> None:
    other = checkpoints[0].with_name("other.safetensors")
    Student(recipe.dimensions()).save(other)
    for spec in (f"student:{other}", f"ensemble:{checkpoints[0]},{other}"):
        with pytest.raises(OptionError, match="no tokenizer"):
            load_teacher(spec)


def test_a_run_goes_on_from_a_student_and_its_tokenizer(
    checkpoints: list[Path], write_recipe: Any, drawn: Path, tmp_path: Path
) -> None:
    start = checkpoints[1]
    recipe = write_recipe(
        ('imagenet = ""', f'imagenet = ""\nstart = "{start}"'),
        ("aside = 6", "aside = 5"),  # another corpus, which would have a tokenizer of its own
        ("steps = 9", "steps = 1"),
        stages=1,
    )
    arguments = ["distill", str(recipe), "--out", str(tmp_path / "run"), "--data", str(drawn)]
    arguments += ["--precision", "fp32"]  # as all tests of one process: Accelerate allows no other
    result = CliRunner().invoke(group, arguments)
    assert result.exit_code == 0, result.output
    before, header = Student.load(start)
    after, ours = Student.load(tmp_path / "run" / "student.safetensors")
    assert ours["tokenizer"] == header["tokenizer"]
    assert json.loads(ours["training"])["start"] == json.loads(header["training"])
    moved = [
        float((a - b).detach().abs().max())
        for a, b in zip(after.parameters(), before.parameters(), strict=True)
    ]
    assert 0 < max(moved) < 1e-3  # one step of the warm-up away, not another beginning


def test_a_start_must_fit(checkpoints: list[Path], recipe: Recipe) -> None:
    start = Start(checkpoints[0])
    assert start.student(recipe.dimensions()).dimensions == recipe.dimensions()
    with pytest.raises(RecipeError, match="width 32, but the recipe asks for 64"):
        start.student(replace(recipe.dimensions(), width=64))
    fewer = start.student(replace(recipe.dimensions(), reducer="pool", keep=(4,)))
    assert fewer.encoder(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 32)
    Student(recipe.dimensions()).save(checkpoints[1])  # as a stage leaves it
    with pytest.raises(RecipeError, match="must be a finished student"):
        Start(checkpoints[1])


def test_a_copied_corpus_serves_where_its_photos_are_not(
    recipe: Recipe, drawn: Path, tmp_path: Path
) -> None:
    made = prepare(recipe, drawn, tmp_path)
    assert prepare(recipe, tmp_path / "elsewhere", tmp_path).folder == made.folder
