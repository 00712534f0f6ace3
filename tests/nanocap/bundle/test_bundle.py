"""A bundle is whole or refused; a write is whole or leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanocap import Captioner
from nanocap.bundle import Bundle, default_bundle
from nanocap.bundle.manifest import Manifest, safe_path
from nanocap.bundle.writer import write_bundle
from nanocap.errors import BundleError, OptionError
from nanocap.files.whole_file import whole_file

Values = dict[str, Any]
FILES = ("README.md", "golden.png", "onnx/begin.onnx", "onnx/step.onnx")


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that may be altered."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def refusal(source: Path) -> str:
    """The one line with which a captioner refuses a bundle."""
    with pytest.raises(BundleError) as caught:
        Captioner(source)
    message = str(caught.value)
    assert "\n" not in message
    assert source.name in message
    return message


def edit(bundle: Path, change: Callable[[Values], object]) -> None:
    path = bundle / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_manifest_survives_the_round_trip(tiny_bundle: Path) -> None:
    for bundle in (tiny_bundle, default_bundle()):
        manifest = Bundle(bundle).manifest
        assert Manifest.from_json(manifest.to_json()) == manifest
        assert manifest.to_json() == (bundle / "manifest.json").read_bytes()
        assert manifest.schema == 2
    assert set(Bundle(tiny_bundle).manifest.files) == set(FILES), (
        "the pieces are in the manifest: no tokenizer.json"
    )


@pytest.mark.parametrize("name", FILES)
def test_one_byte_changed(name: str, bundle: Path) -> None:
    path = bundle / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert f"{name} differs from its SHA-256" in refusal(bundle)


def test_files_too_long_too_short_or_missing(bundle: Path) -> None:
    path = bundle / "onnx" / "begin.onnx"
    data = path.read_bytes()
    path.write_bytes(data + b"\0")
    assert "larger than the manifest states" in refusal(bundle)
    path.write_bytes(data[:-1])
    assert f"has {len(data) - 1} bytes instead of {len(data)}" in refusal(bundle)
    path.unlink()
    assert "onnx/begin.onnx is missing" in refusal(bundle)
    path.mkdir()
    assert "not a regular file" in refusal(bundle)


def test_a_bundle_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "manifest.json is missing" in refusal(tmp_path / "empty")
    (tmp_path / "text.zip").write_text("no zip")
    assert "neither a folder nor a zip" in refusal(tmp_path / "text.zip")


UNSAFE = [
    "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a\\b", "C:x", "", "a/", "a\nb", " a",
    "x" * 300,
]  # fmt: skip


@pytest.mark.parametrize("path", UNSAFE)
def test_a_path_outside(path: str, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("outside")
    with pytest.raises(BundleError, match="leaves the bundle"):
        safe_path(path)
    edit(bundle, lambda values: values["files"].update({path: values["files"]["README.md"]}))
    assert "leaves the bundle" in refusal(bundle)
    edit(bundle, lambda values: values["files"].pop(path))
    edit(bundle, lambda values: values["artifacts"][0]["files"].update(begin=path))
    refusal(bundle)


@pytest.mark.parametrize("link", ["README.md", "onnx"])
def test_a_symbolic_link(link: str, bundle: Path, tmp_path: Path) -> None:
    """Even to the very same bytes: what they are could change after the check."""
    (bundle / link).rename(tmp_path / "elsewhere")
    (bundle / link).symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in refusal(bundle)


def test_a_pipe_in_place_of_a_file_does_not_block(bundle: Path) -> None:
    (bundle / "README.md").unlink()
    os.mkfifo(bundle / "README.md")
    assert "not a regular file" in refusal(bundle)


def put(*path: str | int, value: object) -> Callable[[Values], object]:
    def change(values: Any) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("schema", value=1), "schema must be 2 for this version of nanocap, found 1"),
        (put("schema", value="2"), "schema must be 2"),
        (put("name", value=""), "name must be a text"),
        (put("version", value=1), "version must be a text, found 1"),
        (put("dimensions", value=[]), "dimensions must be an object"),
        (put("dimensions", "max_tokens", value=10**9), "max_tokens must be a whole number"),
        (put("dimensions", "layers", value=-1), "layers must be a whole number"),
        (put("dimensions", "width", value=None), "width must be a whole number"),
        (put("image", "size", value=0), "size must be a whole number from 1 to 4096"),
        (put("image", "fit", value="crop"), "fit must be one of squash, got 'crop'"),
        (put("image", "resample", value="magic"), "resample must be one of"),
        (put("image", "mean", value=[1, 2]), "mean must be a list of 3 numbers"),
        (put("image", "std", value=[1, 2, "3"]), "std must be a list of 3 numbers"),
        (put("image", "std", value=[1, 2, 0]), "std above 0"),
        (put("image", "resize", value="gaussian"), "resize must be that of bilinear"),
        (put("image", "resize", "precision_bits", value=8), "resize must be that of bilinear"),
        (put("tokens", "end", value=10**6), "end must be a whole number from 0 to"),
        (put("tokens", "end", value=0), "share an id"),
        (put("controls", value={}), "quality must be an object"),
        (put("controls", "length", "short", value="7"), "short must be a whole number"),
        (put("controls", "length", "short", value=6), "share an id"),
        (put("vocabulary", value=["a"]), "vocabulary must be an object"),
        (put("vocabulary", "pieces", 3, value=7), "pieces must be a list of texts"),
        (put("vocabulary", "pieces", value=["a"]), "pieces must be a list of 29 texts"),
        (put("vocabulary", "pieces", value=[""] * 29), "pieces must be a list of 29 texts"),
        (put("vocabulary", "special", value=[29]), "special must be a list of ids"),
        (put("vocabulary", "special", value=[True]), "special must be a list of ids"),
        (put("vocabulary", "special", value=None), "special must be a list of ids"),
        (put("presentation", value=None), "presentation must be an object"),
        (put("presentation", "capital", value=1), "capital must be true or false"),
        (put("presentation", "stop", value=""), "stop must be a text"),
        (put("presentation", "ends", value="."), "ends must be a list of texts"),
        (put("presentation", "ends", value=[""]), "ends must be a list of texts"),
        (put("search", value=None), "search must be an object"),
        (put("search", "beams", value=0), "beams must be a whole number from 1 to 64"),
        (put("search", "length_penalty", value="1"), "length_penalty must be a number"),
        (put("search", "quality", value="best"), "quality 'best' is not among the controls"),
        (put("artifacts", value=[]), "artifacts is empty"),
        (put("artifacts", value=[1]), "artifacts must be a list of objects"),
        (put("artifacts", 0, "backend", value="os.path"), "backend must be a plain"),
        (put("artifacts", 0, "beams", value=3), "beams must be a list of 2 whole numbers"),
        (put("artifacts", 0, "beams", value=[0, 5]), "whole numbers from 1 to 64"),
        (put("artifacts", 0, "beams", value=[5, 3]), "whole numbers from 5 to 64"),
        (put("artifacts", 0, "beams", value=[1, 65]), "whole numbers from 1 to 64"),
        (put("artifacts", 0, "state", value=None), "state must be a list of objects"),
        (put("artifacts", 0, "state", 0, "name", value=""), "name must be a text"),
        (put("artifacts", 0, "state", 0, "type", value="float64"), "type must be one of float32"),
        (put("artifacts", 0, "state", 0, "shape", value=4), "shape must be a list of whole"),
        (put("artifacts", 0, "state", 0, "shape", value=["photos"]), "numbers and images, beams"),
        (put("artifacts", 0, "state", 0, "shape", value=[0]), "shape must be a list of whole"),
        (put("artifacts", 0, "state", 0, "shape", value=[True]), "shape must be a list of whole"),
        (put("artifacts", 0, "state", 0, "constant", value="no"), "constant must be true or false"),
        (put("artifacts", 0, "session", value=[]), "session must be an object"),
        (put("artifacts", 0, "session", "ep.context_file_path", value="x"), "of no other entries"),
        (put("artifacts", 0, "session", "session.disable_quant_qdq", value=1), "must be a text"),
        (put("artifacts", 0, "files", "begin", value="x.onnx"), "no entry for x.onnx"),
        (put("golden", "artifact", value="other"), "golden names no artifact: other"),
        (put("golden", "image", value="other.png"), "no entry for other.png"),
        (put("files", "README.md", "sha256", value="00"), "sha256 must be 64"),
        (put("files", "README.md", "bytes", value=-1), "bytes must be a whole number"),
        (put("files", "README.md", "bytes", value=1 << 40), "bytes must be a whole number"),
        (put("files", "manifest.json", value={"bytes": 0, "sha256": "0" * 64}), "list itself"),
        (put("files", value={}), "no entry for"),
    ],
)
def test_a_manifest_that_is_wrong(
    change: Callable[[Values], object], message: str, bundle: Path
) -> None:
    edit(bundle, change)
    found = refusal(bundle)
    assert message in found
    assert "manifest.json" in found
    assert found.endswith(("get or build the bundle again", "build it again"))


def test_two_artifacts_of_one_name(bundle: Path) -> None:
    edit(bundle, lambda values: values["artifacts"].append(values["artifacts"][0]))
    assert "two artifacts have one name" in refusal(bundle)


def test_a_manifest_too_large_to_read(bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(b" " * (5 << 20))
    assert "larger than the manifest states" in refusal(bundle)


def test_graphs_that_the_engine_refuses(bundle: Path, tmp_path: Path) -> None:
    """Right hashes, wrong content: the line names the artifact and the file."""
    files = {path: (bundle / path).read_bytes() for path in Bundle(bundle).manifest.files}
    files["onnx/begin.onnx"] = b"no graph"
    broken = write_bundle(tmp_path / "broken", Bundle(bundle).manifest, files)
    with pytest.raises(Exception, match=r"^artifact onnx-fp32: ONNX Runtime .* refuses onnx/begin"):
        Captioner(broken)


def test_a_file_that_is_not_listed_is_reported_and_never_read(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    assert Bundle(bundle).unlisted() == ["notes.txt"]
    with pytest.raises(BundleError, match=r"notes.txt is not in the manifest"):
        Bundle(bundle).read("notes.txt")


def test_a_zip_gives_the_same_captions(tiny_bundle: Path, tmp_path: Path, photos: Any) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "tiny"), "zip", tiny_bundle))
    assert Captioner(archive)(photos) == Captioner(tiny_bundle)(photos)
    inside = Path(shutil.make_archive(str(tmp_path / "nested"), "zip", tiny_bundle.parent, "tiny"))
    assert Captioner(inside)(photos[0]) == Captioner(tiny_bundle)(photos[0])


def zipped(bundle: Path, target: Path, replace: dict[str, bytes], **info: int) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in bundle.rglob("*") if p.is_file()):
            name = path.relative_to(bundle).as_posix()
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            if name == "README.md":
                entry.external_attr = info.get("readme_mode", 0o100644) << 16
            archive.writestr(entry, replace.get(name, path.read_bytes()))
    return target


def test_a_zip_that_is_unsafe(tiny_bundle: Path, tmp_path: Path) -> None:
    bomb = zipped(tiny_bundle, tmp_path / "bomb.zip", {"README.md": bytes(300 << 20)})
    assert bomb.stat().st_size < 1 << 20
    assert "README.md is larger than the manifest states" in refusal(bomb)
    link = zipped(tiny_bundle, tmp_path / "link.zip", {}, readme_mode=0o120777)
    assert "symbolic link" in refusal(link)
    altered = zipped(tiny_bundle, tmp_path / "altered.zip", {"README.md": b"# tinY\n"})
    assert "differs from its SHA-256" in refusal(altered)
    data = bytearray(zipped(tiny_bundle, tmp_path / "damaged.zip", {}).read_bytes())
    data[len(data) // 3] ^= 0xFF
    (tmp_path / "damaged.zip").write_bytes(data)
    refusal(tmp_path / "damaged.zip")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(link, "a") as archive:
        archive.writestr("README.md", b"twice")
    assert "a name appears twice" in refusal(link)


def test_no_bundle_is_replaced_unasked(bundle: Path, tmp_path: Path) -> None:
    manifest = Bundle(bundle).manifest
    files = {path: bundle / path for path in manifest.files}
    with pytest.raises(OptionError, match="already exists"):
        write_bundle(bundle, manifest, files)
    other = write_bundle(tmp_path / "other", manifest, files)
    (other / "old.txt").write_text("left from before")
    write_bundle(other, manifest, files, overwrite=True)
    assert Bundle(other).unlisted() == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(OptionError, match="is no bundle"):
        write_bundle(tmp_path / "mine", manifest, files, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "mine", "other"]


def test_a_write_that_fails_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    manifest = Bundle(bundle).manifest
    with pytest.raises(BundleError, match="no entry for"):
        write_bundle(tmp_path / "new", manifest, {"README.md": b""})
    with pytest.raises(BundleError, match="leaves the bundle"):
        write_bundle(tmp_path / "new", manifest, {"../README.md": b""})
    with pytest.raises(BundleError, match=r"gone.onnx: cannot be put in the bundle"):
        write_bundle(tmp_path / "new", manifest, {"x": tmp_path / "gone.onnx"})
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


def test_a_write_that_is_killed_leaves_nothing_under_the_name(bundle: Path, tmp_path: Path) -> None:
    """The last file comes from a pipe that nobody writes to: that is where the kill finds it."""
    os.mkfifo(tmp_path / "pipe")
    code = (
        "import sys; from pathlib import Path; from nanocap.bundle import Bundle;"
        "from nanocap.bundle.writer import write_bundle; b = Path(sys.argv[1]);"
        "files = {p: b / p for p in Bundle(b).manifest.files};"
        "files['zz'] = Path(sys.argv[2]); print('writing', flush=True);"
        "write_bundle(sys.argv[3], Bundle(b).manifest, files)"
    )
    target = tmp_path / "new"
    arguments = [sys.executable, "-c", code, str(bundle), str(tmp_path / "pipe"), str(target)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        with open(tmp_path / "pipe", "wb"):  # opens once the writer has come to the last file
            assert list(tmp_path.glob(".new.*.partial")), "the kill comes in the middle"
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not target.exists()
    # The next write goes through all the same.
    manifest = Bundle(bundle).manifest
    write_bundle(target, manifest, {path: bundle / path for path in manifest.files})
    assert Bundle(target).manifest == manifest


def test_a_bundle_that_is_no_regular_file(tmp_path: Path) -> None:
    pipe = tmp_path / "bundle.zip"
    os.mkfifo(pipe)
    with pytest.raises(BundleError, match="neither a folder nor a file"):
        Bundle(pipe)


def test_nothing_but_a_file_is_written_over(tmp_path: Path) -> None:
    pipe = tmp_path / "out"
    os.mkfifo(pipe)
    for place, what in ((pipe, "no regular file"), (tmp_path, "a folder")):
        with pytest.raises(OptionError, match=what), whole_file(place) as partial:
            partial.write_text("x")
    assert pipe.is_fifo()
    with whole_file(tmp_path / "new" / "folder" / "out") as partial:
        partial.write_text("x")
    assert (tmp_path / "new" / "folder" / "out").read_text() == "x"
