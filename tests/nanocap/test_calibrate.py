"""`nanocap calibrate`: a bundle captions photos that people described, and fits how sure it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from nanocap import Captioner
from nanocap.bundle import Bundle
from nanocap.cli import group

PHOTOS = 120
ALL = "a small house and a big tree near a cat and a dog on grass"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with three captions each, that name all that the tiny bundle can say, or a boat."""
    folder, lines = tmp_path_factory.mktemp("described"), []
    for index in range(PHOTOS):
        pixels = np.random.default_rng(index).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        text = ALL if index % 3 else "a boat"
        lines.append(json.dumps({"image": f"{index}.png", "captions": [text] * 3}))
    path = folder / "captions.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def calibrate(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["calibrate", *map(str, arguments)])


def test_the_bundle_keeps_what_was_fitted(tiny_bundle: Path, table: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    before = Bundle(bundle).manifest
    result = calibrate(bundle, "--data", table, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["photos"] == PHOTOS
    assert 0.5 < found["holds"] < 1
    raw, fitted = found["error"]
    assert fitted < 0.1 < raw  # of captions whose pieces are hardly sure, most hold
    after = Bundle(bundle).manifest  # hashes are those of the files, the new card's too
    assert after.confidence is not None
    assert after.confidence.weights == found["weights"]
    assert after.artifacts == before.artifacts
    captions = Captioner(bundle)([table.parent / f"{index}.png" for index in range(PHOTOS)])
    mean = np.mean([caption.confidence for caption in captions])
    assert mean == pytest.approx(found["holds"], abs=0.01)
    shown = calibrate(bundle, "--data", table).output
    assert "calibration error, before" in shown
    assert f"{PHOTOS} photos" in shown


def test_photos_with_too_few_captions(tiny_bundle: Path, table: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    result = calibrate(bundle, "--data", table, "--references", 4)
    assert result.exit_code != 0
    assert "no photo has 4 captions" in result.output
    assert Bundle(bundle).manifest.confidence is None


def test_a_recipe_and_its_sources(tiny_bundle: Path, table: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    source = '[[data.sources]]\nname = "drawn"\ntable = "captions.jsonl"\naside = {}\n'
    recipe = tmp_path / "recipe.toml"
    stage = '[[stages]]\nname = "one"\nkind = "supervised"\nsteps = 1\n'
    text = f'name = "r"\n[data]\nroot = "{table.parent}"\n{source.format(PHOTOS - 10)}{stage}'
    recipe.write_text(text, encoding="utf-8")
    result = calibrate(bundle, "--recipe", recipe, "--source", "drawn", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["photos"] == PHOTOS - 10
    wrong = calibrate(bundle, "--recipe", recipe, "--source", "painted")
    assert "the recipe has no source 'painted'" in wrong.output
