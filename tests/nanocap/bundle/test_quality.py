"""Figures of quality in a bundle: whose they are, and what the card says of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nanocap.bundle import Bundle, default_bundle
from nanocap.bundle.card import CARD, model_card
from nanocap.bundle.quality import check, record, records
from nanocap.bundle.writer import write_bundle
from nanocap.errors import BundleError, OptionError

FIGURES = {
    "photos": 1000,
    "figures": {
        "cider": {"value": 61.234, "low": 58.9, "high": 63.1},
        "distinct": {"value": 800.0, "low": 780.0, "high": 820.0},
    },
}


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def test_a_record_changes_the_card_and_nothing_that_captions(bundle: Path) -> None:
    before = Bundle(bundle).manifest
    record(bundle, before.artifacts[0].name, "holiday", FIGURES)
    opened = Bundle(bundle)
    check(opened)
    assert opened.unlisted() == []
    changed = {path for path in before.files if before.files[path] != opened.manifest.files[path]}
    assert changed <= {CARD}
    [(artifact, name, values)] = records(opened.manifest)
    assert (artifact.name, name) == (before.artifacts[0].name, "holiday")
    assert values["figures"] == FIGURES["figures"]
    card = opened.read(CARD).decode()
    assert "| holiday | 1000 | 61.2 [58.9, 63.1] | 800.0 [780.0, 820.0] |" in card
    assert "| photos of | photos | CIDEr | distinct |" in card


def test_sets_stand_side_by_side_and_the_last_measurement_counts(bundle: Path) -> None:
    artifact = Bundle(bundle).manifest.artifacts[0].name
    record(bundle, artifact, "a", FIGURES)
    record(bundle, artifact, "b", FIGURES)
    record(bundle, artifact, "a", {**FIGURES, "photos": 7})
    found = {name: values["photos"] for _, name, values in records(Bundle(bundle).manifest)}
    assert found == {"a": 7, "b": 1000}


def test_figures_of_other_files_are_refused(bundle: Path) -> None:
    manifest = Bundle(bundle).manifest
    artifact = manifest.artifacts[0]
    record(bundle, artifact.name, "holiday", FIGURES)
    opened = Bundle(bundle)
    files = {path: opened.read(path) for path in opened.manifest.files}
    files[artifact.files["step"]] += b"\0"
    write_bundle(bundle, opened.manifest, files, overwrite=True)
    with pytest.raises(BundleError, match=r"figures on 'holiday' are of other files.*--record"):
        check(Bundle(bundle))


def test_what_cannot_be_recorded(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="has no artifact other"):
        record(bundle, "other", "holiday", FIGURES)
    zipped = shutil.make_archive(str(tmp_path / "zipped"), "zip", bundle)
    with pytest.raises(OptionError, match=r"not in a \.zip"):
        record(Path(zipped), Bundle(bundle).manifest.artifacts[0].name, "holiday", FIGURES)


def test_the_shipped_card_says_what_was_measured_of_the_shipped_files() -> None:
    opened = Bundle(default_bundle())
    manifest = opened.manifest
    check(opened)
    measured = {(artifact.name, name) for artifact, name, _ in records(manifest)}
    for artifact in manifest.artifacts:
        for name in ("flickr8k-val", "coco-human set aside", "alttext set aside", "web-val"):
            assert (artifact.name, name) in measured
    size = sum(entry.bytes for path, entry in manifest.files.items() if path != CARD)
    assert opened.read(CARD).decode() == model_card(manifest, size)
