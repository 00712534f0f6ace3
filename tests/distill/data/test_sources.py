"""Every kind of source through the one reader."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from nanocap.distill.data.sources import Example, read_source, set_aside, source_of
from nanocap.distill.recipes.recipe import Source
from nanocap.errors import DataError

CAPTIONS = [["A red square.", " Something red "], ["A green square."], ["A blue square."]]


def photo(colour: str, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, kind)
    return buffer.getvalue()


PHOTOS = [photo(colour) for colour in ("red", "green", "blue")]


def write_shard(path: Path, first: int, captions: Sequence[object], key: str = "captions") -> None:
    with tarfile.open(path, "w") as tar:
        for index, texts in enumerate(captions):
            parts = {"png": PHOTOS[index % 3], "json": json.dumps({key: texts}).encode()}
            for suffix, data in parts.items():
                member = tarfile.TarInfo(f"{first + index:04}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_photos(folder: Path) -> list[str]:
    (folder / "photos").mkdir()
    names = [f"photos/{index}.png" for index in range(3)]
    for name, data in zip(names, PHOTOS, strict=True):
        (folder / name).write_bytes(data)
    return names


def read(source: Source, root: Path) -> list[Example]:
    return list(read_source(source, root))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_shard(tmp_path / "train-0.tar", 0, CAPTIONS)
    write_shard(tmp_path / "train-1.tar", 3, CAPTIONS)
    write_shard(tmp_path / "val-0.tar", 6, CAPTIONS)
    return tmp_path


def test_shards(shards: Path) -> None:
    examples = read(Source("s", shards="train-*.tar"), shards)
    assert [example.key for example in examples] == [f"000{i}" for i in range(6)]
    assert [example.image for example in examples] == PHOTOS * 2  # the bytes as they were stored
    assert examples[0].captions == ("A red square.", "Something red")


def test_table_of_json_lines(tmp_path: Path) -> None:
    names = write_photos(tmp_path)
    rows = [{"file": n, "text": t} for n, t in zip(names, CAPTIONS, strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source("s", table="rows.jsonl", image="file", captions="text")
    assert read(source, tmp_path) == [
        Example(name, data, tuple(text.strip() for text in texts))
        for name, data, texts in zip(names, PHOTOS, CAPTIONS, strict=True)
    ]


def test_table_of_parquet_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    names = write_photos(folder)  # paths are relative to the table
    table = pyarrow.table({"image": names, "captions": [texts[0] for texts in CAPTIONS]})
    pyarrow.parquet.write_table(table, folder / "rows.parquet")
    examples = read(Source("s", table="set/rows.parquet"), tmp_path)
    assert [example.image for example in examples] == PHOTOS
    assert [example.captions for example in examples] == [(texts[0],) for texts in CAPTIONS]


def test_several_columns_of_captions(tmp_path: Path) -> None:
    names = write_photos(tmp_path)
    table = pyarrow.table({"image": names, "one": ["a", "b", "c"], "two": ["d", None, " "]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    examples = read(Source("s", table="rows.parquet", captions="one, two"), tmp_path)
    assert [example.captions for example in examples] == [("a", "d"), ("b",), ("c",)]


def test_hub_reads_by_the_name_of_a_data_set(tmp_path: Path) -> None:
    """A folder of images stands for one of the hub: the same call of the same library."""
    write_photos(tmp_path)
    lines = [
        json.dumps({"file_name": f"photos/{index}.png", "captions": texts})
        for index, texts in enumerate(CAPTIONS)
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    examples = read(Source("s", hub=str(tmp_path)), Path("elsewhere"))
    assert sorted(example.image for example in examples) == sorted(PHOTOS)
    assert {example.captions for example in examples} >= {("A green square.",)}
    assert len({example.key for example in examples}) == 3
    with pytest.raises(DataError, match="has no 'texts'; it has "):
        read(Source("s", hub=str(tmp_path), captions="texts"), tmp_path)
    with pytest.raises(DataError, match="has no column 'picture'"):
        read(Source("s", hub=str(tmp_path), image="picture"), tmp_path)


def test_drop_leaves_out_captions_and_photos_without_any(shards: Path) -> None:
    source = Source("s", shards="val-*.tar", drop="^A (red|blue)")
    examples = read(source, shards)
    assert [example.key for example in examples] == ["0006", "0007"]
    assert examples[0].captions == ("Something red",)


def test_limit_counts_photos_that_have_captions(shards: Path) -> None:
    source = Source("s", shards="train-*.tar", limit=3)
    assert [example.key for example in read(source, shards)] == ["0000", "0001", "0002"]
    dropping = replace(source, drop="green")
    assert [example.key for example in read(dropping, shards)] == ["0000", "0002", "0003"]


def one_line(source: Source, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(source, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_matches(shards: Path) -> None:
    message = one_line(Source("cats", shards="test-*.tar"), shards)
    assert message == f"source 'cats': no file matches {shards}/test-*.tar"


def test_nothing_is_left(shards: Path) -> None:
    message = one_line(Source("cats", shards="val-*.tar", drop="."), shards)
    assert message == "source 'cats': no photo with a caption in it"


def test_missing_columns(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", 0, CAPTIONS, key="texts")
    message = one_line(Source("s", shards="a.tar"), tmp_path)
    assert message == "source 's': a .json has no 'captions'; it has texts"
    names = write_photos(tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": names[0], "words": "a"}))
    message = one_line(Source("s", table="rows.jsonl"), tmp_path)
    assert message == f"source 's': {tmp_path}/rows.jsonl has no 'captions'; it has image, words"
    message = one_line(Source("s", table="rows.jsonl", image="file", captions="words"), tmp_path)
    assert message == f"source 's': {tmp_path}/rows.jsonl has no 'file'; it has image, words"


def test_shards_without_photos(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("0.json")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"{}"))
    assert one_line(Source("s", shards="a.tar"), tmp_path).startswith("source 's'")


def test_a_table_that_is_not_there_or_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("image,captions\n")
    for name in ("none.jsonl", "rows.csv"):
        message = one_line(Source("s", table=name), tmp_path)
        assert message == f"source 's': {tmp_path}/{name} is no .jsonl or .parquet file"


def test_a_photo_of_a_table_is_missing(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "a.png", "captions": ["a"]}))
    message = one_line(Source("s", table="rows.jsonl"), tmp_path)
    assert message == f"source 's': {tmp_path}/a.png cannot be read"


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"this is no archive" * 100)
    one_line(Source("s", shards="a.tar"), tmp_path)
    (tmp_path / "a.jsonl").write_text('{"image": "a.png", "captions": ["a"]}\n{"image": \n')
    one_line(Source("s", table="a.jsonl"), tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(64))
    one_line(Source("s", table="a.parquet"), tmp_path)
    one_line(Source("s", hub=str(tmp_path / "nowhere")), tmp_path)


def test_a_shard_that_ends_in_the_middle(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", 0, CAPTIONS * 20)
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2 + 700])
    message = one_line(Source("s", shards="a.tar"), tmp_path)
    assert message.startswith(f"{tmp_path}/a.tar: not a tar that can be read (unexpected end")


def test_names_of_columns_that_mean_the_same(tmp_path: Path) -> None:
    """As `label` and `eval` write them, and as image folders of Hugging Face have them."""
    names = write_photos(tmp_path)
    for image in ("image", "file_name", "path"):
        for column in ("captions", "caption", "text"):
            for texts in ("a dog", ["a dog"], ["a dog", " "]):
                rows = [json.dumps({image: name, column: texts}) for name in names]
                (tmp_path / "rows.jsonl").write_text("\n".join(rows))
                examples = read(Source("s", table="rows.jsonl"), tmp_path)
                assert [one.captions for one in examples] == [("a dog",)] * 3
                assert [one.image for one in examples] == PHOTOS
    for column in ("captions", "caption", "text"):
        write_shard(tmp_path / "a.tar", 0, CAPTIONS, key=column)
        for asked in ("captions", "caption"):
            examples = read(Source("s", shards="a.tar", captions=asked), tmp_path)
            assert examples[0].captions == ("A red square.", "Something red")


def test_rows_of_both_columns(tmp_path: Path) -> None:
    names = write_photos(tmp_path)
    rows = [{"image": names[0], "caption": "a"}, {"image": names[1], "captions": ["b", "c"]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = read(Source("s", table="rows.jsonl"), tmp_path)
    assert [one.captions for one in examples] == [("a",), ("b", "c")]


def test_a_folder_with_a_text_beside_each_photo(tmp_path: Path) -> None:
    kinds = {"a.jpg": "JPEG", "a.png": "PNG", "sub/b.TIF": "TIFF", "c.bmp": "BMP"}
    for name, kind in kinds.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(photo("red", kind))
    (tmp_path / "a.txt").write_text("\ufeffa wall\r\n\r\na red wall\r\n", encoding="utf-8")
    (tmp_path / "sub" / "b.json").write_text('{"caption": "a sign"}')
    examples = read(Source("s", folder="."), tmp_path)
    assert [(one.key, one.captions, one.path) for one in examples] == [
        ("a", ("a wall", "a red wall"), "a.jpg"),
        ("a_png", ("a wall", "a red wall"), "a.png"),
        ("sub/b", ("a sign",), "sub/b.TIF"),
    ]
    left_out: dict[str, str] = {}
    list(read_source(Source("s", folder="."), tmp_path, left_out.__setitem__))
    assert left_out == {"c": "has no reference captions"}
    assert one_line(Source("s", folder="gone"), tmp_path).endswith("gone is no folder")


@pytest.mark.parametrize("suffix", ["JPG", "bmp", "gif", "tiff", "avif", "heic"])
def test_shards_of_any_format(tmp_path: Path, suffix: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for index in range(8):  # the odd one stands behind many others
            kind = suffix if index == 7 else "png"
            for name, data in ((f"{index}.{kind}", PHOTOS[0]), (f"{index}.txt", b"a dog")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    assert [one.key for one in read(Source("s", shards="a.tar"), tmp_path)] == list("01234567")


def test_what_a_folder_has(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert source_of(folder) == Source(folder, folder=folder)
    (tmp_path / "labels-00000.tar").touch()
    assert source_of(folder).shards == f"{folder}/labels-*.tar"
    for name in ("metadata.jsonl", "captions.jsonl"):
        (tmp_path / name).touch()
        assert source_of(folder).table == f"{folder}/{name}"


def test_set_aside_is_stable_and_independent_of_order() -> None:
    keys = [f"photo-{index}" for index in range(200)]
    chosen = set_aside(keys, 20)
    assert len(chosen) == 20
    shuffled = random.Random(1).sample(keys, len(keys))
    assert set_aside(shuffled, 20) == chosen
    assert set_aside(keys, 10) < chosen  # fewer are some of the same
    more = set_aside([*keys, *(f"new-{index}" for index in range(20))], 20)
    assert len(more & chosen) > 10  # photos that are added push few of them out
    assert set_aside(keys, 0) == set()
    assert set_aside(keys, 500) == set(keys)
    # by the keys alone, in every process and on every machine
    assert set_aside(["a", "b", "c", "d"], 2) == {"c", "d"}


def lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("row", [None, 5, "a"])
def test_a_row_that_is_no_object(tmp_path: Path, row: object) -> None:
    table = lines(tmp_path / "captions.jsonl", row, {"image": "a.jpg", "caption": "a"})
    with pytest.raises(DataError, match=r"captions.jsonl, line 1: not an object"):
        list(read_source(source_of(str(table)), Path()))


def test_photos_are_found_by_what_leads_to_them(tmp_path: Path) -> None:
    """`nanocap caption --json holiday > holiday/captions.jsonl` names the folder, too."""
    folder = tmp_path / "holiday" / "june"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"photo")
    table = lines(
        tmp_path / "holiday" / "captions.jsonl",
        {"image": "holiday/june/a.jpg", "caption": "a"},
        {"image": "june/a.jpg", "caption": 5},
        {"image": "june/a.jpg", "caption": {"a": 1}},
        {"image": "b\0.jpg", "caption": "b"},
        {"image": "caf\udce9.jpg", "caption": "c"},
    )
    rejected: dict[str, str] = {}
    found = list(read_source(source_of(str(table)), Path(), rejected.__setitem__))
    assert [(one.image, one.captions) for one in found] == [(b"photo", ("a",))]
    assert set(rejected) == {"june/a.jpg", "b\0.jpg", "caf\udce9.jpg"}
