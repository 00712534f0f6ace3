"""Recipes: what they may say, and the one line that answers what they may not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nanocap.distill.recipes.recipe import Recipe, Source, load_recipe
from nanocap.distill.training.stages import STAGES
from nanocap.errors import RecipeError

RECIPES = sorted((Path(__file__).parents[3] / "distill" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes_of_the_package_load(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.dimensions().vocabulary == recipe.data.vocabulary
    assert all(stage.kind in STAGES for stage in recipe.stages)
    assert all(source.licence for source in recipe.data.sources)  # the model card names them


def test_there_are_recipes() -> None:
    assert "nano-s.toml" in [path.name for path in RECIPES]


def test_values_and_defaults(recipe: Recipe) -> None:
    assert [stage.name for stage in recipe.stages] == ["maps", "end-to-end", "self-critical"]
    assert recipe.stages[1].train == ("decoder", "encoder", "upper", "lower")
    assert recipe.stages[0].clip == 1.0
    assert recipe.data.sources[0] == Source(
        "shapes", table="captions.jsonl", aside=6, weight=1.5, licence="drawn by a test"
    )
    dimensions = recipe.dimensions()
    assert (dimensions.image_size, dimensions.keep, dimensions.vocabulary) == (64, (8,), 80)


def test_a_whole_number_is_good_for_a_fraction(write_recipe: Callable[..., Path]) -> None:
    recipe = load_recipe(write_recipe(("weight = 1.5", "weight = 2")))
    assert recipe.data.sources[0].weight == 2.0
    assert isinstance(recipe.data.sources[0].weight, float)


HUB = 'table = "captions.jsonl"'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "sed = 3", "unknown key 'sed' in the recipe; did you mean 'seed'?"),
        (
            "aside = 6",
            "asides = 6",
            "unknown key 'asides' in data.sources[0]; did you mean 'aside'?",
        ),
        ("steps = 9", "zzz = 9", "unknown key 'zzz' in stages[0]; known are name, kind, steps,"),
        ("[data]", "[data]\nvocab = 8", "unknown key 'vocab' in data; did you mean 'vocabulary'?"),
        ("seed = 3", 'seed = "3"', "seed must be of type int, not '3'"),
        ("seed = 3", "seed = true", "seed must be of type int, not True"),
        ("seed = 3", "seed = 3.5", "seed must be of type int, not 3.5"),
        ("weight = 1.5", 'weight = "x"', "data.sources[0].weight must be of type float, not 'x'"),
        ("weight = 1.5", "weight = -1", "data.sources[0].weight must not be negative, but is -1.0"),
        ("steps = 9", "steps = -9", "stages[0].steps must not be negative, but is -9"),
        ("batch = 4", "batch = 0", "stages[2].batch must be at least 1, not 0"),
        ("captions = 2", "captions = 0", "stages[0].captions must be at least 1, not 0"),
        ("samples = 3", "samples = 0", "stages[2].samples must be at least 1, not 0"),
        ("checkpoint = 4", "checkpoint = 0", "stages[0].checkpoint must be at least 1, not 0"),
        (
            'train = ["decoder", "encoder", "upper", "lower"]',
            'train = "all"',
            "stages[1].train must",
        ),
        ("keep = [8]", "keep = [8, 4]", "[student]: keep [8, 4] must name one token count"),
        ("width = 32", "wide = 32", "[student]: unknown dimension 'wide'; known are"),
        ("width = 32", 'width = "x"', "[student]: dimension 'width' must be of type int, not 'x'"),
        ("[student]", "[[student]]", "student must be of type mapping, not"),
        (
            'preset = "nano-xs"',
            'preset = "nano"',
            "unknown preset 'nano'; known are nano-xs, nano-s",
        ),
        ('monitor = "shapes"', 'monitor = "cats"', "monitor 'cats' is not the name of a source"),
        ('monitor = "shapes"', 'monitor = "shapes, x"', "monitor 'x' is not the name of a source"),
        (
            "evaluate = 5",
            "evaluate = 0\nbest = true",
            "stages[0].best needs `monitor` and `evaluate`",
        ),
        (
            HUB,
            f'{HUB}\nhub = "a/b"',
            "source 'shapes' needs exactly one of shards, table, folder, hub",
        ),
        (HUB, "", "source 'shapes' needs exactly one of shards, table, folder, hub"),
        (HUB, f'{HUB}\nquality = "best"', "source 'shapes': quality 'best' is not one of high,"),
        (HUB, f"{HUB}\ndrop = '(a'", "source 'shapes': drop '(a' is no regular expression"),
        (
            "samples = 3",
            "temperature = 0.0",
            "stages[2].temperature must be above 0, not 0",
        ),
        (
            "samples = 3",
            "start_trunk = 0.5",
            "stages[2].start_trunk needs a `start`, and a stage that prunes nothing",
        ),
        (
            "samples = 3",
            'rewarded = ["cats"]',
            "stages[2].rewarded: 'cats' is not the name of a source",
        ),
        (
            "captions = 2",
            'rewarded = ["shapes"]',
            "stages[0].rewarded is for self-critical stages only",
        ),
        ("vocabulary = 80", "", None),
        ("steps = 9\n", "", "stages[0] lacks the key 'steps'"),
        ('name = "shapes"\npreset', "preset", "the recipe lacks the key 'name'"),
        ("seed = 3", "seed = ", "not valid TOML: "),
        ("seed = 3", "seed = 3\nseed = 4", "not valid TOML: "),
    ],
)
def test_one_line_that_names_file_and_key(
    write_recipe: Callable[..., Path], old: str, new: str, message: str | None
) -> None:
    path = write_recipe((old, new))
    if message is None:
        assert load_recipe(path)
        return
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: {message}")
    assert "\n" not in text
    assert caught.value.exit_code == 2


def test_two_sources_of_one_name(write_recipe: Callable[..., Path]) -> None:
    path = write_recipe(
        ("[[data.sources]]", '[[data.sources]]\nname = "shapes"\ntable = "b"\n[[data.sources]]')
    )
    with pytest.raises(RecipeError, match=r"two sources are named 'shapes'$"):
        load_recipe(path)


@pytest.mark.parametrize(
    "text", ["", 'name = "x"', 'name = "x"\nstages = []\n[data]\nsources = []']
)
def test_too_little(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"lacks the key|needs at least one"):
        load_recipe(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml: cannot be read"):
        load_recipe(tmp_path / "none.toml")
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"recipe\.toml: cannot be read"):
        load_recipe(path)
    with pytest.raises(RecipeError, match=f"^{tmp_path}: cannot be read"):
        load_recipe(Path(os.fspath(tmp_path)))


def test_the_fingerprint_follows_what_decides_the_numbers(recipe: Recipe) -> None:
    assert recipe.fingerprint() == replace(recipe).fingerprint()
    moved = replace(recipe, data=replace(recipe.data, root="/elsewhere"))
    assert recipe.fingerprint() == moved.fingerprint()
    assert recipe.fingerprint() != replace(recipe, seed=4).fingerprint()
    assert recipe.fingerprint() != replace(recipe, student={"width": 64}).fingerprint()
    stages = (replace(recipe.stages[0], lr=1e-3), *recipe.stages[1:])
    assert recipe.fingerprint() != replace(recipe, stages=stages).fingerprint()


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "-1.0"])
def test_numbers_that_are_none(tmp_path: Path, value: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(f'name = "a"\npreset = "nano-xs"\n[[stages]]\nema = {value}\n')
    with pytest.raises(RecipeError, match=r"ema must not be|must not be"):
        load_recipe(path)


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000])
def test_toml_that_no_reader_survives(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_recipe(path)


def test_a_recipe_that_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.toml")
    with pytest.raises(RecipeError, match="a named pipe, not a regular file"):
        load_recipe(tmp_path / "r.toml")
