"""Calibrated confidence: what it looks at, and what the manifest says of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nanocap import Captioner
from nanocap.bundle import Bundle
from nanocap.bundle.confidence import FEATURES, Confidence, Known
from nanocap.bundle.manifest import Manifest
from nanocap.bundle.quality import rewrite
from nanocap.caption import Caption, Tag, Token
from nanocap.errors import BundleError

PLAIN = frozenset({"a", "on", "the"})


def caption(words: str, probability: float = 0.5, **more: Any) -> Caption:
    """Of words whose pieces are parted by hyphens, each of the same probability."""
    pieces = [
        ("" if number else "\u2581") + piece
        for word in words.split()
        for number, piece in enumerate(word.split("-"))
    ]
    tokens = tuple(Token(i, piece, probability) for i, piece in enumerate(pieces))
    return Caption(words.replace("-", ""), 0.9, tokens, **more)


def test_the_features_of_a_caption() -> None:
    known = Known.of(
        caption(
            "a ti-ger on the grass",
            tags=(Tag("tiger", 0.8), Tag("cat", 0.9)),
            alternatives=(caption("a tiger"), caption("a cat on the grass")),
        ),
        PLAIN,
    )
    half = math.log(0.5)
    assert known.words == [("tiger", 2 * half), ("grass", half)]
    assert {name: feature(known) for name, feature in FEATURES.items()} == pytest.approx(
        {
            "pieces": half,
            "words": 1.5 * half,
            "least": 2 * half,
            "count": 2,
            "unfound": 1,  # the grass
            "found": 0.8,
            "likeliest": 0.9,
            "agreement": 0.5,  # each of the two is in one of two other captions
        }
    )


@pytest.mark.parametrize("words", ["", "a", "the"])
def test_a_caption_that_names_nothing(words: str) -> None:
    known = Known.of(caption(words), PLAIN)
    assert all(math.isfinite(feature(known)) for feature in FEATURES.values())


def test_the_weights_decide() -> None:
    fitted = Confidence(1.0, {"count": -2.0}, tuple(sorted(PLAIN)), 100)
    assert fitted.of(caption("a dog")) == pytest.approx(1 / (1 + math.e))
    assert fitted.of(caption("a")) == pytest.approx(math.e / (1 + math.e))
    assert replace(fitted, weights={"count": -1e6}).of(caption("a dog")) == pytest.approx(0)


def calibrated(tiny_bundle: Path, folder: Path, weights: dict[str, float]) -> Path:
    """The tiny bundle with a confidence of these weights."""
    bundle = Bundle(tiny_bundle)
    for path in (*bundle.manifest.files, "manifest.json"):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tiny_bundle / path).read_bytes())
    found = Confidence(0.25, weights, ("a",), 200)
    rewrite(folder, lambda manifest: replace(manifest, confidence=found))
    return folder


def test_a_bundle_keeps_it_and_captions_with_it(
    tiny_bundle: Path, tmp_path: Path, photo_files: list[Path]
) -> None:
    folder = calibrated(tiny_bundle, tmp_path / "calibrated", {"pieces": 1.0, "agreement": 0.5})
    manifest = Bundle(folder).manifest
    assert manifest.confidence == Confidence(0.25, {"pieces": 1.0, "agreement": 0.5}, ("a",), 200)
    assert "Confidence is the probability" in (folder / "README.md").read_text()
    plain, sure = Captioner(tiny_bundle), Captioner(folder)
    for path in photo_files:
        # the confidence of a caption does not depend on how many are asked for
        one, several = sure(path), sure(path, n_best=3)
        assert one.confidence == several.confidence == manifest.confidence.of(several)
        assert (one.text, one.tokens) == (plain(path).text, plain(path).tokens)
        assert 0 < one.confidence < 1


def test_a_manifest_without_one_is_as_before(tiny_bundle: Path) -> None:
    data = (tiny_bundle / "manifest.json").read_bytes()
    assert "confidence" not in json.loads(data)
    manifest = Manifest.from_json(data)
    assert manifest.confidence is None
    assert manifest.to_json() == data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"luck": 1.0}}, "'luck' is nothing that this version of nanocap knows"),
        ({"weights": {"count": "1"}}, "count must be a number"),
        ({"intercept": None}, "intercept must be a number"),
        ({"plain": "a"}, "plain must be a list of texts"),
        ({"photos": 0}, "photos must be a whole number from 1"),
    ],
)
def test_a_confidence_that_cannot_be(
    change: dict[str, Any], message: str, tiny_bundle: Path
) -> None:
    values = json.loads((tiny_bundle / "manifest.json").read_text())
    good = {"intercept": 0.0, "weights": {"count": 1.0}, "plain": ["a"], "photos": 5}
    values["confidence"] = good
    assert Manifest.from_json(json.dumps(values).encode()).confidence is not None
    values["confidence"] = {**good, **change}
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(json.dumps(values).encode())
