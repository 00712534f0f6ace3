"""A recipe with what comes before it: one command, resumable, and what is wrong said at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nanocap.student import Student

BEFORE = """
teachers = ["before:teacher"]

[[before]]
name = "teacher"
recipe = "teacher.toml"

[[before]]
name = "labels"
teachers = ["student:before:teacher"]
images = [{images}]
captions = 2
original = ""
"""
LABELLED = """
[[data.sources]]
name = "labelled"
shards = "before:labels/labels-*.tar"
quality = "row"
licence = "captions by a student"

[[stages]]
name = "maps"
"""
MONITOR = 'monitor = "shapes"'


@pytest.fixture
def chained(
    write_recipe: Callable[..., Path], shards: Callable[[dict[str, Image.Image]], str]
) -> Path:
    """A recipe that needs a teacher, and labels of eight plain photos by that teacher."""
    photos = {f"{i:03d}": Image.new("RGB", (64, 64), (30 * i, 9, 200)) for i in range(8)}
    images = json.dumps(shards(photos))
    written = write_recipe(stages=1)
    written.rename(written.with_name("teacher.toml"))
    return write_recipe(
        ('[[stages]]\nname = "maps"\n', LABELLED),
        (MONITOR, MONITOR + BEFORE.format(images=images)),
        ("steps = 9", "steps = 9\ndistillation = 0.5"),
        ("seed = 3", "seed = 4"),
        stages=1,
    )


def test_one_command_makes_all_of_it(chained: Path, program: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = program.invoke(chained, out)
    assert result.exit_code == 0, result.output
    teacher, header = Student.load(out / "before" / "teacher" / "student.safetensors")
    _, ours = Student.load(out / "student.safetensors")
    assert ours["tokenizer"] == header["tokenizer"]
    training = json.loads(ours["training"])
    assert [one["recipe"] for one in training["teachers"]] == ["shapes"]
    assert {"name": "labelled", "licence": "captions by a student"} in training["data"]
    manifest = json.loads((out / "before" / "labels" / "manifest.json").read_text())
    assert manifest["rows"] == 8
    rows = [
        json.loads(line)
        for folder in (out / "cache").glob("corpus-*")
        for line in (folder / "rows.jsonl").read_text().splitlines()
    ]
    assert {row["source"] for row in rows} == {"shapes", "labelled"}
    files = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    again = program.invoke(chained, out)
    assert again.exit_code == 0, again.output
    files.pop(out / "before" / "labels" / "manifest.json")  # the last run's counts
    assert {p: p.stat().st_mtime_ns for p in files} == files
    assert teacher.dimensions.vocabulary == 80


@pytest.mark.slow
def test_what_came_before_decides_the_run(chained: Path, program: Any, tmp_path: Path) -> None:
    """With another teacher below it, the finished stage is another recipe's."""
    out = tmp_path / "run"
    assert program.invoke(chained, out).exit_code == 0
    path = out / "before" / "teacher" / "student.safetensors"
    student, header = Student.load(path)
    student.decoder.norm.bias.data += 0.5
    student.save(path.with_name("stage-0-maps.safetensors"), _stage(path))
    path.unlink()
    refused = program.invoke(chained, out)
    assert refused.exit_code != 0
    assert "made otherwise" in refused.output or "made by another recipe" in refused.output
    assert header["tokenizer"]


def _stage(student: Path) -> dict[str, str]:
    """The header of the stage that a student ended with."""
    _, header = Student.load(student.with_name("stage-0-maps.safetensors"))
    return {"fingerprint": header["fingerprint"]}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("student:before:teacher", "student:before:teachers", "before:teachers is not made here"),
        (
            "student:before:teacher",
            "before:teacher",
            "before:labels: teacher 'before:teacher' is not of",
        ),
        ('name = "labels"', 'name = "teacher"', "the name 'teacher' must be its own"),
        ('name = "labels"', 'name = "../labels"', "must be its own, of a-z, 0-9, '-'"),
        ('recipe = "teacher.toml"', "", "needs exactly one of recipe, teachers"),
        ("images = [", "images = [] #", "`images` are what `teachers` label"),
        ('"teacher.toml"', '"recipe.toml"', "recipe.toml: comes before itself"),
        ('"teacher.toml"', '"other.toml"', "other.toml: cannot be read"),
    ],
)
def test_chains_that_do_not_hold(
    chained: Path, program: Any, tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = chained.read_text(encoding="utf-8")
    assert old in text
    chained.write_text(text.replace(old, new), encoding="utf-8")
    result = program.invoke(chained, tmp_path / "run")
    assert result.exit_code != 0
    assert message in result.output
    assert not (tmp_path / "run" / "before" / "teacher").exists()  # said before anything is made


@pytest.mark.slow
def test_preparing_makes_what_comes_before(chained: Path, program: Any, tmp_path: Path) -> None:
    result: Any = program.invoke(chained, tmp_path / "run", "--prepare-only", "--json")
    assert result.exit_code == 0, result.output
    corpus = Path(json.loads(result.stdout.splitlines()[-1])["result"])
    sources = {json.loads(line)["source"] for line in (corpus / "rows.jsonl").open()}
    assert sources == {"shapes", "labelled"}
    assert not (tmp_path / "run" / "student.safetensors").exists()
