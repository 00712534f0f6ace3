"""Crops, squashes and flips."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nanocap.distill.data.augment import augment, squash
from nanocap.distill.data.batches import Schedule
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.feature_cache import Maps, Photos, may_flip, normalize
from nanocap.distill.recipes.recipe import Recipe
from nanocap.image.image import load_image, load_rgb
from nanocap.image.rule import ImageRule
from nanocap.student import Student


def halves(width: int = 60, height: int = 40) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    return image


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 99), st.booleans())
def test_any_photo_becomes_a_square(width: int, height: int, seed: int, flip: bool) -> None:
    image = Image.new("RGB", (width, height), (10, 200, 30))
    pixels = augment(image, 32, np.random.default_rng(seed), flip)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == (10, 200, 30)).all()  # nothing but the photo is in it


def test_a_photo_that_is_stored_on_its_side_is_learned_upright() -> None:
    """As the runtime turns it, so that both see the same."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    buffer = io.BytesIO()
    halves(60, 40).save(buffer, "PNG", exif=exif)
    image = load_rgb(buffer.getvalue())
    assert image.size == (40, 60)
    assert image.getpixel((20, 5)) == (255, 0, 0)
    assert image.getpixel((20, 55)) == (0, 0, 255)
    assert (squash(image, 32) == load_image(buffer.getvalue(), ImageRule(size=32))).all()


def test_the_same_randomness_gives_the_same_view() -> None:
    image = Image.effect_noise((50, 70), 80).convert("RGB")
    first, again, other = (
        augment(image, 32, np.random.default_rng(seed), True) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_sided_photos_are_never_mirrored() -> None:
    mirrored = {True: 0, False: 0}
    for may in mirrored:
        for seed in range(60):
            pixels = augment(halves(), 32, np.random.default_rng(seed), may)
            mirrored[may] += int(pixels[16, 0, 2] > 128)  # blue on the left
    assert mirrored[False] == 0
    assert 15 < mirrored[True] < 45


def test_flipping_changes_nothing_else() -> None:
    image = Image.effect_noise((50, 70), 80).convert("RGB")
    for seed in range(20):
        plain = augment(image, 32, np.random.default_rng(seed), False)
        free = augment(image, 32, np.random.default_rng(seed), True)
        assert np.array_equal(free, plain) or np.array_equal(free, plain[:, ::-1])


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        (("a dog on the left", "a dog"), False),
        (("a dog", "turning right"), False),
        (("a bright leftover", "a dog"), True),
    ],
)
def test_captions_that_name_a_side(
    corpus: Corpus, captions: tuple[str, ...], expected: bool
) -> None:
    sided = Corpus(corpus.folder)
    sided.rows[3] = replace(sided.rows[3], captions=captions)
    assert may_flip(sided, 3) is expected


def test_squash_is_the_whole_photo() -> None:
    pixels = squash(halves(), 32)
    assert pixels.shape == (32, 32, 3)
    assert tuple(pixels[0, 0]) == (255, 0, 0)
    assert tuple(pixels[31, 31]) == (0, 0, 255)


def test_decode_gives_rgb_of_any_mode() -> None:
    for mode in ("L", "P", "RGBA", "CMYK"):
        buffer = io.BytesIO()
        Image.new(mode, (5, 4)).save(buffer, "TIFF")
        image = load_rgb(buffer.getvalue())
        assert (image.mode, image.size) == ("RGB", (5, 4))


def test_normalize_is_the_trunks_rule() -> None:
    pixels = np.zeros((1, 2, 3, 3), np.uint8)
    pixels[0, 1, 2] = (255, 127, 63)
    tensor = normalize(pixels)
    assert tensor.shape == (1, 3, 2, 3)
    assert tensor[0, :, 1, 2].tolist() == [1.0, 0.0, -0.5]
    assert tensor[0, 0, 0, 0].item() == -127 / 128


def test_photos_are_the_same_however_they_are_asked(recipe: Recipe, corpus: Corpus) -> None:
    """A resumed run starts without what the run before had decoded ahead."""
    schedule = Schedule(recipe, corpus, 1)
    rows, places = [int(row) for row in schedule.photos(3)], list(range(8))
    running = Photos(corpus, schedule, 64)
    for step in range(3):
        running.inputs(step, [int(row) for row in schedule.photos(step)], places)
    later = running.inputs(3, rows, places)
    assert later.shape == (8, 3, 64, 64)
    assert torch.equal(Photos(corpus, schedule, 64).inputs(3, rows, places), later)
    # a process of two gets its places of the same batch
    share = Photos(corpus, schedule, 64).inputs(3, rows[1::2], places[1::2])
    assert torch.equal(share, later[1::2])


def test_maps_are_what_the_lower_trunk_makes(
    recipe: Recipe, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("maps")
    schedule, student = Schedule(recipe, corpus, 0), Student(recipe.dimensions())
    maps = Maps(corpus, schedule, student, 1, cache)
    rows = [int(row) for row in schedule.photos(0)]
    found = maps.inputs(0, rows, list(range(8)))
    plain = np.stack([squash(corpus.photo(row), 64) for row in rows])
    with torch.no_grad():
        expected = student.encoder.trunk.lower(normalize(plain))
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)  # kept in half precision
    written = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    Maps(corpus, schedule, student, 2, cache)
    assert {name: (cache / name).stat().st_mtime_ns for name in written} == written  # not redone
    files = len(recipe.data.sources)
    assert len(list(cache.iterdir())) == 2 * files
    with torch.no_grad():
        student.encoder.trunk.stem.weight += 0.1
    Maps(corpus, schedule, student, 1, cache)
    assert len(list(cache.iterdir())) == 3 * len(
        recipe.data.sources
    )  # another trunk has maps of its own


def test_maps_are_made_in_the_arithmetic_that_the_processor_has(
    recipe: Recipe, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 where it is multiplied in hardware, else fp32: emulated it would take all day."""
    monkeypatch.setattr("nanocap.distill.data.feature_cache.cpu_has_bf16", lambda: False)
    schedule, student = Schedule(recipe, corpus, 0), Student(recipe.dimensions())
    rows = [int(row) for row in schedule.photos(0)]
    found = Maps(corpus, schedule, student, 1, tmp_path).inputs(0, rows, list(range(8)))
    with torch.no_grad():
        plain = normalize(np.stack([squash(corpus.photo(row), 64) for row in rows]))
        exact = student.encoder.trunk.lower(plain)
        with torch.autocast("cpu", torch.bfloat16):
            narrow = student.encoder.trunk.lower(plain).float()
    assert (narrow - exact).abs().max() > 4 * (found - exact).abs().max()  # kept as fp16
