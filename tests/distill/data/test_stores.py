"""Photos of folders: the same rows as from a shard that was packed of them, whatever lies there."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nanocap.cli import group
from nanocap.distill.data.keys import photo_key
from nanocap.distill.data.sources import read_source, source_of
from nanocap.distill.labelling.photos import PhotoShards, open_photo
from nanocap.errors import DataError
from nanocap.image.formats import FORMATS

NO_IMAGE = f"not an image, despite its name; nanocap reads {', '.join(FORMATS)}"


def encoded(grey: int, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(buffer, format)
    return buffer.getvalue()


def laid_out(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The folder, with these files in it."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def found(folder: Path, *original: str) -> dict[str, tuple[bool, str, tuple[str, ...]]]:
    """Whether each photo can be used, why not, and its texts."""
    photos = PhotoShards([str(folder)], original)
    opened = [open_photo(photo) for photo in photos.read(0, len(photos))]
    return {
        one.photo.key: (one.image is not None, one.reason, one.photo.originals) for one in opened
    }


@given(st.from_regex(r"[^/\0]{1,8}(/[^/\0]{1,8}){0,2}", fullmatch=True))
def test_keys_are_names_in_a_shard(path: str) -> None:
    key = photo_key(path)
    assert photo_key(key) == key
    assert "." not in key.rpartition("/")[2] or key == path


def test_a_folder_is_a_shard_unpacked(tmp_path: Path) -> None:
    folder = laid_out(
        tmp_path / "photos",
        {
            "b.jpg": encoded(1, "JPEG"),
            "a/c.PNG": encoded(2),
            "a/c.json": json.dumps({"captions": ["A cat."]}).encode(),
            "a.webp": encoded(3, "WEBP"),
        },
    )
    shard = tmp_path / "photos.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("a.webp", "a/c.PNG", "a/c.json", "b.jpg"):
            tar.add(folder / name, name)
    packed = PhotoShards([str(shard)], ["captions"])
    photos = PhotoShards([str(folder)], ["captions"])
    assert list(photos.read(0, 3)) == list(packed.read(0, 3))
    assert [photo.originals for photo in photos.read(0, 3)] == [(), ("A cat.",), ()]
    for first in range(3):
        for count in range(4 - first):
            assert list(photos.read(first, count)) == list(packed.read(first, count))


def test_what_lies_in_folders(tmp_path: Path) -> None:
    folder = laid_out(
        tmp_path / "photos",
        {
            "Screenshot.10.12.png": encoded(1),
            "phone.jpg": encoded(2, "MPO"),
            "both.jpg": encoded(3, "JPEG"),
            "both.tiff": encoded(3, "TIFF"),
            "old.gif": encoded(4, "GIF"),
            "text.jpg": b"no photo",
            "empty.jpg": b"",
            "notes.txt": b"",
            "captions.json": b"[]",
            ".hidden.jpg": encoded(5, "JPEG"),
            ".trash/a.jpg": encoded(5, "JPEG"),
            "odd.png": encoded(6),
            "odd.json": b"[",
        },
    )
    (folder / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    os.mkfifo(folder / "pipe.jpg")
    assert found(folder, "captions") == {
        "Screenshot_10_12": (True, "", ()),
        "phone": (True, "", ()),
        "both": (True, "", ()),
        "both_tiff": (True, "", ()),
        "old": (True, "", ()),
        "text": (False, f"is no photo that can be read ({NO_IMAGE})", ()),
        "empty": (False, "has no image", ()),
        "odd": (False, "its .json cannot be read", ()),
        "nowhere": (False, "cannot be read (No such file or directory)", ()),
        "pipe": (False, "cannot be read (a named pipe, not a regular file)", ()),
    }


def stored(folder: Path, key: str) -> tuple[str, Image.Image]:
    """The suffix of a photo in the shard of its labels, and the photo as it is there."""
    photos = PhotoShards([str(folder)])
    one = next(open_photo(p) for p in photos.read(0, len(photos)) if p.key == key)
    return one.suffix, Image.open(io.BytesIO(one.photo.data))


@pytest.mark.parametrize("name", ["a.heic", "a.jpg"])
def test_a_heic_photo_becomes_a_jpeg(tmp_path: Path, name: str) -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 64), "orange")).save(buffer)
    folder = laid_out(tmp_path / "photos", {name: buffer.getvalue()})
    suffix, image = stored(folder, "a")
    assert (suffix, image.format, image.size) == ("jpg", "JPEG", (64, 64))
    assert all(abs(a - b) < 6 for a, b in zip(image.getpixel((9, 9)), (255, 165, 0), strict=True))


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "PPM"])
def test_what_a_shard_does_not_hold_becomes_a_png_without_loss(tmp_path: Path, format: str) -> None:
    folder = laid_out(tmp_path / "photos", {f"a.{format.lower()}": encoded(77, format)})
    suffix, image = stored(folder, "a")
    assert (suffix, image.format) == ("png", "PNG")
    assert image.getpixel((4, 4)) == (77, 77, 77)


def test_a_photo_that_is_stored_as_it_came_keeps_its_bytes(tmp_path: Path) -> None:
    for suffix, format in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")):
        data = encoded(3, format)
        folder = laid_out(tmp_path / suffix, {f"a.{suffix}": data})
        [photo] = PhotoShards([str(folder)]).read(0, 1)
        assert (open_photo(photo).suffix, open_photo(photo).photo.data) == (suffix, data)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "photos", {"a.png": encoded(1)})
    os.rename(folder / "a.png", os.fsencode(folder) + b"/\xff.png")
    assert list(found(folder)) == ["\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["a.jpg", "a.png", "a.webp"], ["a", "a_png", "a_webp"]),
        (["a.b.png", "a_b.png"], ["a_b_png", "a_b"]),  # the second has that key by its name
        (["a.JPG", "a.jpg"], ["a", "a_jpg"]),
        (["A.jpg", "a.jpg"], ["A", "a_jpg"]),
        (["a.jpg", "a.png", "a_png.jpg"], ["a", "a_png_2", "a_png"]),
    ],
)
def test_names_that_would_be_one_key(tmp_path: Path, names: list[str], keys: list[str]) -> None:
    folder = laid_out(tmp_path / "photos", dict.fromkeys(names, encoded(1)))
    photos = PhotoShards([str(folder)])
    assert {path: key for key, path in photos.paths.items()} == dict(zip(names, keys, strict=True))
    assert [photo.key for photo in photos.read(0, len(names))] == photos.keys


def test_folders_with_photos_of_one_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        laid_out(tmp_path / name, {"a.png": encoded(1), "b.png": encoded(2)})
    photos = PhotoShards([str(tmp_path / "one"), str(tmp_path / "two")])
    assert photos.keys == ["a", "b", "a_png", "b_png"]


def test_no_photo_of_a_folder_is_lost(tmp_path: Path) -> None:
    """From the photos over the labels to what a recipe reads, by paths as `caption` writes them."""
    alike = ("a.jpg", "a.png", "A.JPG", "a.b.png", "a_b.png")
    files = {f"sub.x/{name}": encoded(9) for name in alike}
    files |= {"old.gif": encoded(1, "GIF"), "scan.tif": encoded(2, "TIFF")}
    folder = laid_out(tmp_path / "photos", files)
    captions = tmp_path / "theirs.jsonl"
    lines = [{"image": f"{folder}/{name}", "caption": f"a dog on a {name[-5]}"} for name in files]
    captions.write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "labels"
    arguments = ["--teacher", f"file:{captions}", "--images", str(folder), "--out", str(out)]
    result = CliRunner().invoke(group, ["label", *arguments])
    assert result.exit_code == 0, result.output
    examples = list(read_source(source_of(str(out)), Path()))
    assert len(examples) == len({one.key for one in examples}) == len(files)
    said = {one.key: one.captions for one in examples}
    assert said["scan"] == ("a dog on a n",)


def test_a_folder_without_photos(tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "photos", {"notes.txt": b""})
    with pytest.raises(DataError, match="photos: no photos in it"):
        PhotoShards([str(folder)])
    with pytest.raises(DataError, match=r"not a tar .* name WebDataset shards, or folders"):
        PhotoShards([str(folder / "*.txt")])


def test_the_command_takes_folders(tmp_path: Path) -> None:
    first = laid_out(tmp_path / "one", {"a.png": encoded(1), "sub/b.jpg": encoded(2, "JPEG")})
    second = laid_out(tmp_path / "two", {"c.png": encoded(3), "d.png": b"torn"})
    captions = tmp_path / "theirs.jsonl"
    named = {"a": "a", "b": "./sub/b.jpg", "c": "c.png"}  # by key, or by path
    lines = [{"image": image, "caption": f"A dog on a {name}."} for name, image in named.items()]
    captions.write_text("\n".join(map(json.dumps, lines)))
    result = CliRunner().invoke(
        group,
        [
            *("label", "--teacher", f"file:{captions}", "--out", str(tmp_path / "out")),
            *("--images", str(first), "--images", str(second)),
        ],
    )
    assert result.exit_code == 1, result.output
    assert "d: left out: is no photo that can be read" in result.output
    labels = PhotoShards([str(tmp_path / "out" / "*.tar")], ["captions"])
    rows = {photo.key: photo.originals for photo in labels.read(0, len(labels))}
    assert rows == {
        "a": ("A dog on a a.",),
        "sub/b": ("A dog on a b.",),
        "c": ("A dog on a c.",),
    }
