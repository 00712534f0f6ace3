"""The parity report: that it says what the captions themselves say, and whose figures they are."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from nanocap.bundle import Bundle
from nanocap.bundle.card import CARD
from nanocap.bundle.quality import check, record_comparison
from nanocap.bundle.writer import write_bundle
from nanocap.cli.parity import command
from nanocap.convert.exporters import Job, load_exporter
from nanocap.convert.parity_report import Report, report
from nanocap.errors import BundleError, OptionError
from nanocap.measure.report.cards import Photo
from nanocap.runtime.captioner import Captioner

PHOTOS, PROBES = 6, 4


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pair(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """int8 and fp32 alone: each artifact's memory is measured in a process of its own."""
    opened = Bundle(bundle)
    kept = tuple(one for one in opened.manifest.artifacts if one.precision in ("int8", "fp32"))
    files = {path: opened.read(path) for path in opened.manifest.files}
    manifest = replace(opened.manifest, artifacts=kept)
    return write_bundle(tmp_path_factory.mktemp("pair") / "pair", manifest, files)


@pytest.fixture(scope="module")
def photos(tiny: Any, bundle: Path) -> list[Photo]:
    """Photos of which people say what the fp32 artifact says, and something else."""
    exact = Captioner(bundle, artifact="onnx-fp32", threads=1)
    pictures = [png(pixels) for pixels in tiny.pixels(PHOTOS, seed=21)]
    said = exact(pictures)
    return [
        Photo(f"photo{i}", picture, (one.text, "word1 word2 word3 word4"))
        for i, (picture, one) in enumerate(zip(pictures, said, strict=True))
    ]


@pytest.fixture(scope="module")
def found(pair: Path, photos: list[Photo]) -> Report:
    return report(pair, photos, probes=PROBES)


def test_the_reference_comes_first_and_every_artifact_is_there(pair: Path, found: Report) -> None:
    manifest = Bundle(pair).manifest
    assert found.reference == "onnx-fp32"
    assert found.rows[0].artifact.name == found.reference
    assert {row.artifact.name for row in found.rows} == {one.name for one in manifest.artifacts}
    assert (found.photos, found.probes, dict(found.left_out)) == (PHOTOS, PROBES, {})


def test_the_reference_is_compared_with_nothing(found: Report) -> None:
    first, *others = found.rows
    assert first.parity is None
    assert first.difference is None
    assert all(row.parity is not None and row.parity.photos == PROBES for row in others)


def test_differences_are_those_of_the_figures(found: Report) -> None:
    first, *others = found.rows
    assert first.cider.value > 0
    for row in others:
        assert row.difference is not None
        assert row.difference.value == pytest.approx(row.cider.value - first.cider.value)
        assert row.milliseconds > 0
        assert row.bytes > 0


@pytest.mark.slow
def test_first_differences_are_those_of_the_captions(
    tiny: Any, pair: Path, photos: list[Photo], tmp_path: Path
) -> None:
    """Greedy captions agree up to the piece that is named, and differ there."""
    job = Job(tiny.probe(tiny.pixels(1)), tiny.search(), tiny.pixels(1))
    [stranger] = load_exporter("onnx").export(tiny.student(seed=1), ["fp32"], job)
    opened = Bundle(pair)
    files = {path: opened.read(path) for path in opened.manifest.files}
    other = next(one for one in opened.manifest.artifacts if one.precision == "int8")
    files[other.files["step"]] = stranger.files[stranger.artifact.files["step"]]
    written = write_bundle(tmp_path / "b", opened.manifest, files)

    row = next(row for row in report(written, photos).rows if row.artifact.name == other.name)
    assert row.parity is not None
    assert row.parity.captions_equal == 0
    pictures = {photo.key: photo.image for photo in photos}
    captioners = [Captioner(written, artifact=name) for name in ("onnx-fp32", other.name)]
    assert row.first_differences
    for told in row.first_differences:
        found = re.fullmatch(r"(\w+), piece (\d+): '(.+)', here '(.+)'", told)
        assert found is not None
        key, place, *pieces = found.groups()
        said = [captioner(pictures[key], beams=1).tokens for captioner in captioners]
        start, at = (
            ([token.id for token in tokens][: int(place) - 1] for tokens in said),
            int(place),
        )
        assert len({tuple(ids) for ids in start}) == 1
        words = [tokens[at - 1].piece if len(tokens) >= at else "<end>" for tokens in said]
        expected, differing = (word.replace("\u2581", " ") for word in words)
        assert expected == pieces[0]
        never = at == 1 and pieces[1] == "<end>"  # the search allows no caption of nothing
        assert never or differing == pieces[1]


def test_what_does_not_run_or_cannot_be_read_is_named(
    pair: Path, photos: list[Photo], tmp_path: Path
) -> None:
    opened = Bundle(pair)
    manifest = opened.manifest
    exact = next(one for one in manifest.artifacts if one.precision == "fp32")
    later = replace(exact, name="later-fp16", backend="later", precision="fp16")
    files = {path: opened.read(path) for path in manifest.files}
    written = write_bundle(
        tmp_path / "b", replace(manifest, artifacts=(*manifest.artifacts[:2], later)), files
    )
    broken = replace(photos[0], key="broken", image=b"no photo")
    found = report(written, [broken, *photos[:2]], probes=1)
    assert found.photos == 2
    assert found.left_out.keys() == {"broken", "later-fp16"}
    assert "no backend 'later'" in found.left_out["later-fp16"]


def test_without_fp32_there_is_nothing_to_compare_with(
    pair: Path, photos: list[Photo], tmp_path: Path
) -> None:
    opened = Bundle(pair)
    manifest = opened.manifest
    files = {path: opened.read(path) for path in manifest.files}
    only = tuple(one for one in manifest.artifacts if one.precision == "int8")
    written = write_bundle(tmp_path / "b", replace(manifest, artifacts=only), files)
    with pytest.raises(OptionError, match=r"has no fp32 artifact.*--precision fp32 too"):
        report(written, photos)
    with pytest.raises(OptionError, match="no photo to compare on"):
        report(pair, [replace(photos[0], image=b"no photo")])


def test_it_is_recorded_with_the_files_that_were_measured(
    pair: Path, found: Report, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(pair, tmp_path / "copy"))
    record_comparison(copy, {row.artifact.name: row.to_dict() for row in found.rows})
    opened = Bundle(copy)
    check(opened)
    int8 = next(row for row in found.rows if row.artifact.precision == "int8")
    line = next(
        line
        for line in opened.read(CARD).decode().splitlines()
        if f"| {int8.bytes / 1e6:.2f}" in line
    )
    assert f"{int8.cider.value:.1f} [" in line
    assert f"{round(int8.milliseconds, 2):.1f} |" in line

    files = {path: opened.read(path) for path in opened.manifest.files}
    files[int8.artifact.files["step"]] += b"\0"
    write_bundle(copy, opened.manifest, files, overwrite=True)
    with pytest.raises(BundleError, match=r"parity report is of other files.*parity --record"):
        check(Bundle(copy))


def test_the_command_prints_records_and_draws(
    pair: Path, photos: list[Photo], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(pair, tmp_path / "copy"))
    rows = []
    for photo in photos:
        (tmp_path / f"{photo.key}.png").write_bytes(photo.image)
        rows.append(json.dumps({"image": f"{photo.key}.png", "captions": photo.references}))
    table = tmp_path / "captions.jsonl"
    table.write_text("\n".join(rows), encoding="utf-8")
    page = tmp_path / "page"
    options = ["--data", str(table), "--photos", "2", "--record", "--report", str(page)]
    done = CliRunner().invoke(command, [str(copy), *options])
    assert done.exit_code == 0, done.output
    assert f"{PHOTOS} photos, 2 of them piece by piece; against onnx-fp32; 1 thread;" in done.output
    html = (page / "index.html").read_text(encoding="utf-8")
    for artifact in Bundle(copy).manifest.artifacts:
        assert artifact.name in done.output
        assert artifact.name in html
        assert artifact.measured["comparison"]["against"] == "onnx-fp32"
    done = CliRunner().invoke(command, [str(copy), "--data", str(table), "--photos", "2", "--json"])
    assert json.loads(done.stdout)["artifacts"].keys() == {
        one.name for one in Bundle(copy).manifest.artifacts
    }
