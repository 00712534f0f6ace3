"""`nanocap pack`: what lies in the folder trains as the recipe does, without what it came from."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from nanocap.cli import group
from nanocap.distill.data.sources import read_source, set_aside
from nanocap.distill.pack import pack, to_toml
from nanocap.distill.recipes.recipe import load_recipe
from nanocap.distill.recipes.records import read_toml
from nanocap.errors import DataError, NanocapError, RecipeError
from nanocap.image.image import load_rgb
from nanocap.student import Student


@pytest.fixture
def recipe(drawn: Path, recipe_text: str, tmp_path: Path) -> Path:
    path = tmp_path / "shapes.toml"
    text = recipe_text.replace("[data]\n", f"[data]\nroot = {json.dumps(str(drawn))}\n")
    path.write_text(text, encoding="utf-8")
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["pack", *map(str, arguments)])


def test_the_packed_recipe_has_the_same_photos_and_captions(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed"
    result = call(recipe, "--out", out, "--end-to-end", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["photos"] == 36
    assert found["bytes"] == sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    ours, theirs = load_recipe(recipe), load_recipe(out / "recipe.toml")
    assert all("lower" in stage.train for stage in theirs.stages)
    plain = tuple(replace(stage, train=()) for stage in ours.stages)
    assert tuple(replace(stage, train=()) for stage in theirs.stages) == plain
    assert (theirs.seed, theirs.dimensions()) == (ours.seed, ours.dimensions())
    [mine], [packed] = ours.data.sources, theirs.data.sources
    assert packed == replace(mine, table="source-0/captions.jsonl")
    before = {e.key: e for e in read_source(mine, recipe.parent / ours.data.root)}
    after = {e.key: e for e in read_source(packed, out)}
    assert {key: e.captions for key, e in after.items()} == {
        key: e.captions for key, e in before.items()
    }
    assert set_aside(list(after), 6) == set_aside(list(before), 6)
    assert load_rgb(next(iter(after.values())).image).size == (80, 60)  # never enlarged


def test_its_script_trains(recipe: Path, tmp_path: Path) -> None:
    shorter = recipe.read_text(encoding="utf-8").split('[[stages]]\nname = "end-to-end"')[0]
    recipe.write_text(shorter.replace("steps = 9", "steps = 2"), encoding="utf-8")
    pack(recipe, tmp_path / "packed", 60)
    results = tmp_path / "results"
    results.mkdir()
    environment = {**os.environ, "OUT": str(results), "PYTHON": sys.executable}
    subprocess.run(["sh", tmp_path / "packed" / "run.sh"], check=True, env=environment)
    parts = sorted(results.glob("student.part-*"))
    whole = tmp_path / "student.safetensors"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    student, metadata = Student.load(whole)
    assert "tokenizer" in metadata
    assert student.dimensions.width == load_recipe(recipe).dimensions().width
    assert (results / "metrics.jsonl").exists()


def test_shards_stay_shards(recipe: Path, drawn: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shapes-0.tar", "w") as tar:
        for line in (drawn / "captions.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            photo = Image.open(drawn / row["image"]).resize((600, 400))
            file = io.BytesIO()
            photo.save(file, "PNG")
            key = Path(row["image"]).stem
            for suffix, data in (("png", file.getvalue()), ("json", line.encode())):
                entry = tarfile.TarInfo(f"{key}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    text = recipe.read_text(encoding="utf-8").replace(
        'table = "captions.jsonl"', 'shards = "*.tar"'
    )
    recipe.write_text(text, encoding="utf-8")
    packed = pack(recipe, tmp_path / "packed", 60, data=tmp_path)
    assert (packed.photos, packed.side) == (36, 224)
    [source] = load_recipe(tmp_path / "packed" / "recipe.toml").data.sources
    assert source.shards == "source-0.tar"
    found = list(read_source(source, tmp_path / "packed"))
    assert load_rgb(found[0].image).size == (336, 224)
    assert "red-square-on-blue" in {one.key for one in found}


def test_photos_are_shrunk_until_they_fit(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="36 photos take 0 MB at 128 pixels, and there are 0 left"):
        pack(recipe, tmp_path / "packed", 0.05)
    assert not (tmp_path / "packed").exists()


def test_what_is_not_packed(recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    for line, message in (('teachers = ["a"]', "teachers and scorers"), ('start = "a"', "--start")):
        recipe.write_text(f"{line}\n{text}", encoding="utf-8")
        with pytest.raises(RecipeError, match=message):
            pack(recipe, tmp_path / "packed", 60)
    recipe.write_text(text, encoding="utf-8")
    (tmp_path / "there").mkdir()
    with pytest.raises(NanocapError, match="already exists"):
        pack(recipe, tmp_path / "there", 60)


def test_recipes_as_toml(tmp_path: Path) -> None:
    values = {
        "name": 'a "b" \\ \u00e9\n',
        "seed": 3,
        "lr": 2e-05,
        "fresh": True,
        "monitor": ["a", "b"],
        "data": {"root": ".", "sources": [{"name": "x", "weight": 0.5}, {"name": "y"}]},
        "stages": [{"name": "one", "train": []}],
    }
    (tmp_path / "r.toml").write_text(to_toml(values), encoding="utf-8")
    assert read_toml(tmp_path / "r.toml") == values
