"""A recipe for somebody's own photos, and all the way from them to captions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw

from nanocap.cli import group
from nanocap.distill.data.corpus import prepare
from nanocap.distill.draft import SIZES, draft_recipe
from nanocap.distill.recipes.recipe import load_recipe
from nanocap.errors import DataError, OptionError

COLOURS = ("red", "green", "blue", "yellow", "black")


def draw_photos(folder: Path, count: int = 10) -> dict[str, str]:
    """Photos in a folder; captions by name."""
    folder.mkdir(parents=True)
    captions = {}
    for index in range(count):
        ground, colour = COLOURS[index % 5], COLOURS[(index + 1 + index // 5) % 5]
        image = Image.new("RGB", (160, 120), ground)
        ImageDraw.Draw(image).ellipse((40, 30, 120, 90), colour)
        image.save(folder / f"IMG_{index}.jpg")
        captions[f"IMG_{index}.jpg"] = f"A {colour} ball on a {ground} wall."
    return captions


def as_table(name: str, image: str, caption: str) -> Callable[[Path, dict[str, str]], None]:
    def write(folder: Path, captions: dict[str, str]) -> None:
        rows = [json.dumps({image: name, caption: text}) for name, text in captions.items()]
        (folder / name).write_text("\n".join(rows), encoding="utf-8")

    return write


def as_texts(folder: Path, captions: dict[str, str]) -> None:
    for name, text in captions.items():
        (folder / name).with_suffix(".txt").write_text(text, encoding="utf-8")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(group, list(map(str, arguments)))


def as_labels(folder: Path, captions: dict[str, str]) -> None:
    """What `nanocap label` makes of the folder takes its place."""
    theirs = folder.with_name("theirs.jsonl")
    as_table(str(theirs), "image", "caption")(folder, captions)
    out = folder.with_name("labels")
    result = invoke("label", "--teacher", f"file:{theirs}", "--images", folder, "--out", out)
    assert result.exit_code == 0, result.output
    for photo in folder.iterdir():
        photo.unlink()
    folder.rmdir()
    out.rename(folder)


WAYS = {
    "captions.jsonl": as_table("captions.jsonl", "image", "caption"),
    "metadata.jsonl": as_table("metadata.jsonl", "file_name", "text"),
    "texts": as_texts,
    "labels": as_labels,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["photos", 'my "photos" [2]'])
def test_every_way_to_write_captions(tmp_path: Path, way: str, name: str) -> None:
    folder = tmp_path / name
    WAYS[way](folder, draw_photos(folder))
    draft = draft_recipe(folder, tmp_path / "my.toml")
    assert (draft.photos, draft.captions, draft.left_out) == (10, 10, {})
    recipe = load_recipe(tmp_path / "my.toml")
    corpus = prepare(recipe, tmp_path / recipe.data.root, tmp_path / "cache")
    assert len(corpus.rows) == len(corpus.training()) == 10
    assert corpus.tokenizer.get_vocab_size() == recipe.data.vocabulary
    [stage] = recipe.stages
    assert stage.batch <= 10


def test_the_folder_decides_the_size() -> None:
    assert [size.most for size in SIZES] == sorted(size.most for size in SIZES)
    assert [size.steps for size in SIZES] == sorted(size.steps for size in SIZES)


def test_many_photos_are_measured_on_some(tmp_path: Path) -> None:
    as_texts(tmp_path / "photos", draw_photos(tmp_path / "photos", 60))
    draft_recipe(tmp_path / "photos", tmp_path / "my.toml")
    recipe = load_recipe(tmp_path / "my.toml")
    assert (recipe.monitor, recipe.data.sources[0].aside) == ("own", 6)
    assert recipe.stages[0].evaluate


def test_what_the_command_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    captions = draw_photos(tmp_path / "photos")
    del captions["IMG_3.jpg"]
    as_texts(tmp_path / "photos", captions)
    result = invoke("distill", "--init", "photos")
    assert result.exit_code == 0, result.output
    assert result.stderr == "nanocap: IMG_3: left out: has no reference captions\n"
    assert result.stdout.splitlines() == [
        "my.toml: 9 photos with 9 captions in .",
        "next: nanocap distill my.toml --out runs/my",
        "then: nanocap convert runs/my/student.safetensors --out BUNDLE --photos photos",
    ]
    again = invoke("distill", "--init", "photos")
    assert again.exit_code == 2
    assert "my.toml: already exists; name another" in again.stderr
    other = json.loads(invoke("distill", "other.toml", "--init", "photos", "--json").stdout)
    assert other["next"] == "nanocap distill other.toml --out runs/other"
    assert (tmp_path / "other.toml").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "Missing argument 'RECIPE'"), (["my.toml"], "Missing option '--out'")],
)
def test_what_is_still_required(arguments: list[str], message: str) -> None:
    result = invoke("distill", *arguments)
    assert (result.exit_code, message in result.output) == (2, True)


def test_folders_without_captions(tmp_path: Path) -> None:
    draw_photos(tmp_path / "photos")
    with pytest.raises(DataError, match=r"photos: none of its 10 photos has a caption: write cap"):
        draft_recipe(tmp_path / "photos", tmp_path / "my.toml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photo with a caption in it"):
        draft_recipe(tmp_path / "empty", tmp_path / "my.toml")
    with pytest.raises(OptionError, match=r"gone: is no folder; name the one of your photos"):
        draft_recipe(tmp_path / "gone", tmp_path / "my.toml")
    assert not (tmp_path / "my.toml").exists()


@pytest.mark.slow
def test_from_ten_photos_to_captions(tmp_path: Path) -> None:
    captions = draw_photos(tmp_path / "photos")
    WAYS["captions.jsonl"](tmp_path / "photos", captions)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "nanocap", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=os.environ.copy()
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    train, convert = run("distill", "--init", "photos").splitlines()[1:]
    run(*train.split()[2:])
    run(*convert.replace("BUNDLE", "bundle").split()[2:])
    said = dict(
        line.split("\t") for line in run("caption", "--bundle", "bundle", "photos").splitlines()
    )
    assert set(said) == {f"photos/{name}" for name in captions}
    right = sum(said[f"photos/{name}"] == text for name, text in captions.items())
    assert right >= 5, said  # of photos that it has seen; how well it does on others is not asked


@pytest.mark.parametrize(
    "name", ["two\nvocabulary = 5", 'quo"te', "de\x7fl", "tab\t", "caf\u00e9 \U0001f41e"]
)
def test_no_name_of_a_folder_gets_into_the_recipe_as_more(tmp_path: Path, name: str) -> None:
    folder, path = tmp_path / name, tmp_path / "my.toml"
    as_texts(folder, draw_photos(folder))
    draft_recipe(folder, path)
    recipe = load_recipe(path)
    assert recipe.data.vocabulary > 5
    assert Path(recipe.data.root).name == name
