"""Teachers that are no single model: captions that somebody has, and several teachers as one."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from nanocap.cli import group
from nanocap.distill.teachers import Scored, ask, load_teacher
from nanocap.distill.teachers.ensemble import Pool, consensus
from nanocap.distill.teachers.settings import Settings
from nanocap.distill.teachers.student import StudentTeacher
from nanocap.distill.training.white_box_teachers import Guides
from nanocap.errors import MissingExtraError, NanocapError, OptionError, RecipeError
from nanocap.student import Student

GREY = Image.new("RGB", (8, 8), "grey")


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return f"file:{path}"


@pytest.fixture
def theirs(tmp_path: Path) -> str:
    return write(
        tmp_path / "theirs.jsonl",
        {"image": "p0", "caption": " A cat\n sits. "},
        {"image": "p1", "captions": ["a dog", "", "a dog", "a red dog"]},
        {"image": "p0", "caption": "A cat."},
        {"image": "p2", "caption": ""},
        {"image": "p3", "error": "cannot be read"},  # as nanocap caption --json says it
    )


def test_a_file_answers_by_key(theirs: str) -> None:
    found = ask(load_teacher(theirs), ["p1", "p0", "p2", "p3", "unknown"], [GREY] * 5, 2)
    assert [[one.text for one in scored] for scored in found] == [
        ["a dog", "a red dog"],
        ["A cat sits.", "A cat."],
        [],
        [],
        [],
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"caption": "a"}, 'line 1: needs "image"'),
        ({"image": "a"}, 'line 1: needs "caption"'),
        ({"image": "a", "caption": [1]}, 'line 1: needs "caption"'),
        ({"image": "a", "caption": " "}, "no captions in it"),
        (["a"], "entry 1: not an object"),
    ],
)
def test_files_that_are_no_captions(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(NanocapError, match=message):
        load_teacher(write(tmp_path / "a.jsonl", row))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text("a cat\n")
    for rest, message in (
        ("nowhere.jsonl", "captions cannot be read"),
        ("text.csv", "are a .jsonl file"),
        ("text.jsonl", "line 1: not JSON"),
    ):
        with pytest.raises(NanocapError, match=message):
            load_teacher(f"file:{tmp_path / rest}")


@pytest.mark.parametrize("name", ["file:theirs.jsonl", "hf:Salesforce/blip2-opt-2.7b"])
def test_a_black_box_has_no_logits(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=f"'{name}' is no path of a student.*nanocap label"):
        Guides([tmp_path / name])  # as a recipe names it


def test_consensus_prefers_what_others_say_too() -> None:
    ranked = consensus(
        ["a bird", "A cat sits on grass.", "a cat sits on a road", "a cat sits on grass near trees"]
    )
    assert ranked[0].text == "A cat sits on grass."
    assert ranked[-1] == Scored("a bird", ranked[-1].score)
    assert 0 <= ranked[-1].score < ranked[0].score <= 10


def test_said_twice_is_one_caption_and_more_evidence() -> None:
    texts = ["a dog runs", "the cat sleeps", "The cat sleeps!"]
    assert [one.text for one in consensus(texts)] == ["the cat sleeps", "a dog runs"]
    assert consensus(["alone"]) == [Scored("alone", 0.0)]
    assert consensus(["", "..."]) == []


def test_other_kinds_are_pooled(checkpoints: list[Path], tmp_path: Path) -> None:
    student = load_teacher(f"student:{checkpoints[0]}")
    assert isinstance(student, StudentTeacher)
    said = [one.text for one in student.caption([GREY], 3)[0]]
    path = write(tmp_path / "a.jsonl", {"image": "p", "captions": [said[0], "zebra"]})
    pool = load_teacher(f"ensemble:{path},{checkpoints[0]}")
    assert isinstance(pool, Pool)
    assert pool.name == f"{path},{checkpoints[0]}"
    found = ask(pool, ["p"], [GREY], 3)[0]
    assert found == consensus([said[0], "zebra", *said])[:3]
    assert {one.text for one in found} <= {*said, "zebra"}
    assert found[0].score > 0  # both members say one of them


def test_students_are_averaged_or_pooled(checkpoints: list[Path]) -> None:
    spec = f"ensemble:student:{checkpoints[0]},{checkpoints[1]}"
    assert isinstance(load_teacher(spec), StudentTeacher)
    student, header = Student.load(checkpoints[1])
    vocabulary = json.loads(header["tokenizer"])
    vocabulary["added_tokens"].pop()
    student.save(checkpoints[1], {**header, "tokenizer": json.dumps(vocabulary)})
    pool = load_teacher(spec)
    assert isinstance(pool, Pool)
    assert len(pool.members) == 2
    with pytest.raises(OptionError, match="different vocabularies"):
        Guides(checkpoints)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"package transformers.*nanocap\[teachers\]"):
        load_teacher("hf:Salesforce/blip-image-captioning-base")


@pytest.mark.parametrize(
    ("spec", "prompt", "message"),
    [
        ("ensemble:a,ensemble:b", None, "cannot be a member"),
        ("ensemble:a,b", "what", "none of its members takes a prompt"),
        ("file:a.jsonl", "what", "takes no prompt"),
        ("student:a", "what", "takes no prompt"),
    ],
)
def test_what_cannot_be_asked(spec: str, prompt: str | None, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_teacher(spec, Settings(prompt))


def test_the_command_names_photos_without_a_caption(
    theirs: str, tmp_path: Path, shards: Callable[[dict[str, Image.Image]], str]
) -> None:
    pattern = shards({f"p{index}": GREY for index in range(3)})
    arguments = ["label", "--teacher", theirs, "--images", pattern, "--out", str(tmp_path / "out")]
    for _ in range(2):  # also where the shard already exists
        result = CliRunner().invoke(group, arguments)
        assert result.exit_code == 1
        assert "p2: left out: " in result.output
        assert "2 photos labelled" in result.output
    with tarfile.open(tmp_path / "out" / "labels-00000.tar") as tar:
        assert tar.getnames() == ["p0.png", "p0.json", "p1.png", "p1.json"]
        row = json.load(tar.extractfile("p0.json"))  # type: ignore[arg-type]
    assert (row["captions"], row["teachers"]) == (["A cat sits.", "A cat."], [theirs] * 2)


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """Three photos with captions, and one that is no photo."""
    lines = []
    for index, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (20 + index, 16), colour).save(tmp_path / f"{index}.png")
        lines.append({"image": f"{index}.png", "captions": [f"a {colour} wall", "a wall"]})
    (tmp_path / "no.png").write_text("no photo")
    table = tmp_path / "references.jsonl"
    write(table, *lines, {"image": "no.png", "captions": ["a text"]})
    return table


def evaluated(*arguments: object) -> Result:
    quick = ("--skip", "meteor", "--skip", "spice")
    return CliRunner().invoke(group, ["eval", *map(str, arguments), *quick])


def test_a_teacher_is_scored_as_its_captions_are(checkpoints: list[Path], references: Path) -> None:
    spec, out = f"student:{checkpoints[0]}", references.parent / "out.jsonl"
    result = evaluated(spec, "--data", references, "--captions", out, "--batch-size", 2, "--json")
    assert result.exit_code == 1  # for the photo that is none
    assert "no.png: left out: " in result.stderr
    scored = json.loads(result.stdout)
    assert (scored["photos"], scored["left_out"]) == (3, 1)
    teacher = load_teacher(spec)
    for line in out.read_text().splitlines():
        row = json.loads(line)
        with Image.open(references.parent / row["image"]) as photo:
            [said] = ask(teacher, [row["image"]], [photo.convert("RGB")], 3)
        assert row["caption"] == said[0].text
    again = json.loads(evaluated(out, "--data", references, "--json").stdout)
    assert again["figures"] == scored["figures"]


def test_a_teacher_beside_captions(references: Path) -> None:
    """Of several captions a photo the best counts too, of a teacher as of a bundle."""
    folder, colours = references.parent, ("red", "green")
    rows = [{"image": f"{i}.png", "caption": f"a {c} wall"} for i, c in enumerate(colours)]
    both = [{**row, "captions": ["a dog", row["caption"]]} for row in rows]
    right = write(folder / "right.jsonl", *rows).removeprefix("file:")
    teacher = write(folder / "both.jsonl", *both)
    result = evaluated(teacher, right, "--data", references, "--n-best", 2, "--json")
    assert f"2.png: left out: {teacher} says nothing of it" in result.stderr
    compared = json.loads(result.stdout)
    assert compared["photos"] == 2
    assert compared["compared"]["rouge_l"]["verdict"] == "second"
    assert compared["compared"]["rouge_l"]["second"]["value"] == 100
    assert compared["figures"]["oracle_cider"]["value"] > compared["figures"]["cider"]["value"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("oracle:x", "teacher 'oracle:x' is not of the form KIND:REST; kinds are student, hf"),
        ("student:gone.safetensors", "gone.safetensors"),
        ("file:gone.jsonl", "captions cannot be read"),
    ],
)
def test_a_teacher_that_is_none_is_not_scored(references: Path, spec: str, message: str) -> None:
    result = evaluated(spec, "--data", references)
    assert result.exit_code == (2 if spec.startswith("oracle") else 1)
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_only_a_bundle_is_recorded_into(references: Path) -> None:
    result = evaluated("student:a.safetensors", "--data", references, "--record", "mine")
    assert result.exit_code == 2
    assert "--record writes into one bundle" in result.output
