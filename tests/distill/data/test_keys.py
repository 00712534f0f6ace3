"""Captions of photos that somebody else calls otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from nanocap.cli import group
from nanocap.distill.data.keys import distinct, find_photos
from nanocap.distill.data.rows import Captioned, read_captions

QUICK = ("--skip", "meteor", "--skip", "spice")


def same(*keys: str) -> dict[str, str]:
    """Photos whose paths are their keys."""
    return {key: key for key in keys}


@pytest.mark.parametrize(
    ("names", "photos", "found"),
    [
        (["a"], same("a"), {"a": "a"}),
        (["./a.jpg", "sub/b.png"], {"a": "a.jpg", "sub/b": "sub/b.png"}, ["a", "sub/b"]),
        (["/photos/sub/a.jpg", "/photos/a.jpg"], same("a.jpg", "sub/a"), ["sub/a", "a.jpg"]),
        (["elsewhere/sub/a.jpg", "elsewhere/a.jpg"], same("a", "sub/a"), ["sub/a", "a"]),
        (["elsewhere/x/a.jpg", "elsewhere/y/a.jpg"], same("y/a", "x/a"), ["x/a", "y/a"]),
        (["elsewhere/a.jpg"], same("photos/a.jpg", "photos/b.jpg"), ["photos/a.jpg"]),
        (["elsewhere/a.jpg"], same("photos/a.png"), ["photos/a.png"]),
        (["a.jpg", "a.png"], {"a": "a.jpg", "a_png": "a.png"}, ["a", "a_png"]),
        (["IMG.01.jpg"], same("IMG_01"), ["IMG_01"]),
        (["x/a.jpg", "y/a.jpg"], same("z/a.jpg"), {}),  # which of the two?
        (["x/a.jpg"], same("y/a.jpg", "z/a.jpg"), {}),
        (["a.jpg", "x/a.jpg"], same("a.jpg", "y/a.jpg"), {"a.jpg": "a.jpg"}),
        (["b.jpg"], same("a.jpg"), {}),
        ([], same("a"), {}),
        (["a"], {}, {}),
    ],
)
def test_photos_are_found_where_it_is_sure(
    names: list[str], photos: dict[str, str], found: dict[str, str] | list[str]
) -> None:
    expected = found if isinstance(found, dict) else dict(zip(names, found, strict=True))
    assert find_photos(names, photos, [Path("/photos")]) == expected


def test_distinct_keys_are_distinct_whatever_they_are() -> None:
    keys = ["a", "a", "A", "a_png", "a_png_2", "a"]
    found = distinct(keys, ["png"] * 6)
    assert found == ["a", "a_png_3", "A_png_4", "a_png", "a_png_2", "a_png_5"]
    assert len({key.casefold() for key in found}) == 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos, some of one name, with references in a table that calls them by their paths."""
    folder, lines = tmp_path / "photos", []
    for name in ("a.png", "sub/a.png", "sub/b.jpg", "c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), "red").save(folder / name)
        lines.append({"file_name": name, "text": f"a red wall {len(lines)}"})
    (folder / "broken.png").write_text("no photo")
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(group, list(map(str, arguments)))


@pytest.fixture
def said(folder: Path, tiny_bundle: Path) -> Path:
    """What `nanocap caption --json FOLDER` says of them."""
    shown = invoke("caption", "--bundle", tiny_bundle, "--n-best", 2, "--json", folder)
    path = folder.parent / "said.jsonl"
    path.write_text(shown.stdout)
    assert len(path.read_text().splitlines()) == 5
    return path


def test_what_caption_writes_eval_reads(folder: Path, said: Path) -> None:
    out = folder.parent / "again.jsonl"
    arguments = ("--data", folder, "--json", "--captions", out, *QUICK)
    result = invoke("eval", said, *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["photos"] == 4
    keys = {line.name for line in read_captions(out)}
    assert keys == {"a.png", "sub/a.png", "sub/b.jpg", "c.png"}
    again = invoke("eval", out, *arguments)
    assert json.loads(again.stdout)["figures"] == json.loads(result.stdout)["figures"]


def test_what_caption_writes_label_reads(folder: Path, said: Path) -> None:
    out = folder.parent / "labels"
    result = invoke("label", "--teacher", f"file:{said}", "--images", folder, "--out", out)
    assert [line for line in result.output.splitlines() if "left out" in line] == [
        line for line in result.output.splitlines() if line.startswith("nanocap: broken: ")
    ]
    scored = invoke("eval", f"file:{said}", "--data", out, "--json", *QUICK)
    assert json.loads(scored.stdout)["photos"] == 4, scored.output


@pytest.mark.parametrize("verb", ["eval", "eval file:", "label"])
def test_captions_of_other_photos_are_one_line(folder: Path, verb: str) -> None:
    path = folder.parent / "other.jsonl"
    path.write_text('{"image": "holiday/x.jpg", "caption": "a dog"}\n')
    if verb == "label":
        out = folder.parent / "labels"
        result = invoke("label", "--teacher", f"file:{path}", "--images", folder, "--out", out)
        wanted = "'a'"
    else:
        target = f"file:{path}" if verb.endswith(":") else path
        result, wanted = invoke("eval", target, "--data", folder, *QUICK), "'a.png'"
    (line,) = result.output.splitlines()
    assert line == (
        f"nanocap: {path}: has no caption of any of the photos: it calls them such as"
        f" 'holiday/x.jpg', they are such as {wanted}; write keys or paths of theirs"
    )
    assert result.exit_code == 1


def test_lines_of_captions(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    rows = [
        {"image": "a", "caption": " a\ndog "},
        {"file_name": "b", "captions": ["a cat", ""]},
        {"path": "c", "text": "a sign", "alternatives": [{"caption": "a wall", "confidence": 0.1}]},
        {"image": "d", "error": "damaged"},
        {"image": "e", "caption": ""},
    ]
    path.write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert list(read_captions(path)) == [
        Captioned("a", ("a dog",)),
        Captioned("b", ("a cat", "")),
        Captioned("c", ("a sign", "a wall")),
        Captioned("e", ("",)),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_captions_written_by_other_systems(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_bytes('{"image": "a.jpg", "caption": "a café"}\r\n'.encode(encoding))
    assert list(read_captions(path)) == [Captioned("a.jpg", ("a café",))]
