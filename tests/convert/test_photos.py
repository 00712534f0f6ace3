"""Photos from folders, files and shards."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanocap.convert.errors import ConversionError
from nanocap.convert.photos import find_photos, load_photos, spread
from nanocap.image.rule import ImageRule

RULE = ImageRule(size=16)


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    return path


def test_folders_files_and_shards_give_their_photos(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.png").write_bytes(png(1))
    (tmp_path / "notes.txt").write_text("no photo")
    write_shard(tmp_path / "b.tar", {"x.png": png(2), "x.json": b"{}", "y.png": png(3)})
    single = tmp_path.with_name("single.png")
    single.write_bytes(png(4))
    found = find_photos([tmp_path, single])
    assert [(p.path.name, p.member) for p in found] == [
        ("b.tar", "x.png"),
        ("b.tar", "y.png"),
        ("a.png", None),
        ("single.png", None),
    ]
    pixels = load_photos(found, 10, RULE)
    assert pixels.shape == (4, 16, 16, 3)
    assert pixels[:, 0, 0, 0].tolist() == [2, 3, 1, 4]


def test_a_photo_reads_the_same_from_a_file_and_from_a_shard(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(9))
    write_shard(tmp_path / "b.tar", {"a.png": png(9)})
    first, second = load_photos(find_photos([tmp_path]), 2, RULE)
    assert (first == second).all()


def test_a_shard_is_never_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_shard(folder / "evil.tar", {"../escaped.png": png(5), "/absolute.png": png(6)})
    assert len(load_photos(find_photos([folder]), 5, RULE)) == 2
    assert [p.name for p in tmp_path.rglob("*.png")] == []
    assert not Path("/absolute.png").exists()


def test_a_damaged_photo_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"this is no image")
    (tmp_path / "b.png").write_bytes(png(7))
    assert load_photos(find_photos([tmp_path]), 5, RULE)[:, 0, 0, 0].tolist() == [7]
    (tmp_path / "b.png").unlink()
    with pytest.raises(ConversionError, match=r"none of 1 photos can be read, the last: .*a\.png"):
        load_photos(find_photos([tmp_path]), 5, RULE)


def test_photos_are_spread_evenly_and_calibration_is_not_compared_on(tmp_path: Path) -> None:
    for shade in range(10):
        (tmp_path / f"{shade}.png").write_bytes(png(shade))
    found = find_photos([tmp_path])
    chosen = spread(found, 5)
    assert [p.path.name for p in chosen] == ["0.png", "2.png", "4.png", "6.png", "8.png"]
    others = load_photos(found, 5, RULE, skip=chosen)
    assert others[:, 0, 0, 0].tolist() == [1, 3, 5, 7, 9]
    assert load_photos([], 5, RULE).shape == (0, 16, 16, 3)
    assert np.array_equal(load_photos(found, 99, RULE)[:, 0, 0, 0], np.arange(10))


def test_a_missing_source_and_a_broken_shard_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"gone: no such photo, folder or shard"):
        find_photos([tmp_path / "gone"])
    (tmp_path / "c.tar").write_bytes(b"not a tar" * 100)
    with pytest.raises(ConversionError, match=r"c\.tar: not a tar shard that can be read"):
        find_photos([tmp_path])
