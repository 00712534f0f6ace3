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
from nanocap.distill.labelling.photos import PhotoShards, open_photo
from nanocap.distill.sources import photo_key
from nanocap.errors import DataError


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
        "old": (False, "is neither JPEG, PNG nor WebP", ()),
        "text": (False, "is no photo that can be read", ()),
        "empty": (False, "has no image", ()),
        "odd": (False, "its .json cannot be read", ()),
        "nowhere": (False, "cannot be read (No such file or directory)", ()),
    }


def test_a_heic_photo_with_another_name_is_left_out(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 64))).save(buffer)
    folder = laid_out(tmp_path / "photos", {"a.jpg": buffer.getvalue(), "b.png": encoded(1)})
    assert found(folder)["a"] == (False, "is neither JPEG, PNG nor WebP", ())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "photos", {"a.png": encoded(1)})
    os.rename(folder / "a.png", os.fsencode(folder) + b"/\xff.png")
    assert list(found(folder)) == ["\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize("name", ["a_b.png", "a.b.PNG"])
def test_two_names_that_are_one_key(tmp_path: Path, name: str) -> None:
    folder = laid_out(tmp_path / "photos", {"a.b.png": encoded(1), name: encoded(2)})
    with pytest.raises(DataError, match=r"photos: .* would both be a_b; rename one of them$"):
        PhotoShards([str(folder)])


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
