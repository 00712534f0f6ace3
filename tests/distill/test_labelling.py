"""The labelling engine: rows, resumption, evidence on disk, and input that is broken."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from nanocap.cli import group
from nanocap.distill.data.batches import CaptionTable
from nanocap.distill.data.corpus import prepare
from nanocap.distill.data.sources import read_source
from nanocap.distill.labelling import Options, Panel, Task, label
from nanocap.distill.labelling.photos import PhotoShards
from nanocap.distill.recipes.recipe import Source, load_recipe
from nanocap.distill.teachers import Scored
from nanocap.errors import DataError, NanocapError, OptionError
from nanocap.student.controls import QUALITY


class Brightness:
    """A teacher for photos of one grey: says how bright they are, and counts what it was asked."""

    name = "brightness"

    def __init__(self, dies_after: int = 1000) -> None:
        self.asked, self.dies_after = 0, dies_after

    def caption(self, images: Sequence[Image.Image], n: int) -> list[list[Scored]]:
        if self.asked + len(images) > self.dies_after:
            raise KeyboardInterrupt
        self.asked += len(images)
        greys = [image.getpixel((0, 0)) for image in images]
        return [[Scored(f"a dog {g[0]} way {i}", -float(i)) for i in range(n)] for g in greys]  # type: ignore[index]


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def greys(path: Path, count: int, *captions: str) -> str:
    """A shard of so many photos of different greys, keys from p0."""
    row = json.dumps({"captions": captions}).encode()
    write_tar(
        path,
        (
            (f"p{n}.{kind}", data)
            for n in range(count)
            for kind, data in (("png", png(n)), ("json", row))
        ),
    )
    return str(path)


def rows(folder: Path) -> dict[str, bytes]:
    """What decides: the rows and the log of decisions."""
    paths = sorted((*folder.glob("*.tar"), *folder.glob("*.decisions.jsonl")))
    return {path.name: path.read_bytes() for path in paths}


def keys(folder: Path) -> list[str]:
    source = Source("labels", shards="labels-*.tar")
    return [example.key for example in read_source(source, folder)]


def test_labels_are_a_source_of_their_photos(tmp_path: Path) -> None:
    photos = PhotoShards([greys(tmp_path / "in.tar", 7)])
    labelled = label(
        Task(photos, tmp_path / "out", Options(2, batch=2, shard=3)), Panel([Brightness()])
    )
    assert labelled.left_out == {}
    assert [path.name for path in sorted((tmp_path / "out").glob("*.tar"))] == [
        f"labels-0000{index}.tar" for index in range(3)
    ]
    read = list(read_source(Source("labels", shards="labels-*.tar"), tmp_path / "out"))
    assert [(one.key, one.image) for one in read] == [(f"p{n}", png(n)) for n in range(7)]
    assert [set(one.captions) for one in read] == [
        {f"a dog {n} way 0", f"a dog {n} way 1"} for n in range(7)
    ]


def test_the_manifest_says_what_came_of_it_and_where_the_time_went(tmp_path: Path) -> None:
    photos = PhotoShards([greys(tmp_path / "in.tar", 7)])
    label(Task(photos, tmp_path / "out", Options(2, batch=2, shard=3)), Panel([Brightness()]))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["complete"], manifest["rows"], manifest["left_out"]) == (True, 7, 0)
    assert sum(manifest["levels"].values()) == 7
    assert manifest["origins"] == {"teacher": 14}
    assert [one["rows"] for one in manifest["files"]] == [3, 3, 1]
    seconds = manifest["seconds"]
    assert 0 < seconds["propose"] < seconds["total"]
    assert {"decode", "fuse", "verify", "rank", "write"} <= set(seconds)
    log = (tmp_path / "out" / "labels-00002.decisions.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in log] == ["p6"]
    assert json.loads(log[0])["kept"][0]["teacher"] == "brightness"


def test_a_run_that_was_stopped_ends_with_the_same_rows(tmp_path: Path) -> None:
    photos, options = PhotoShards([greys(tmp_path / "in.tar", 9)]), Options(batch=2, shard=3)
    label(Task(photos, tmp_path / "whole", options), Panel([Brightness()]))
    with pytest.raises(KeyboardInterrupt):
        label(Task(photos, tmp_path / "killed", options), Panel([Brightness(dies_after=7)]))
    assert not list((tmp_path / "killed").glob(".*.partial"))
    done, skipped = len(list((tmp_path / "killed").glob("*.tar"))), []
    again = Brightness()
    label(Task(photos, tmp_path / "killed", options), Panel([again]), skip=skipped.append)
    assert (again.asked, sum(skipped)) == (9 - 3 * done, 3 * done)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["tar", "json", "cut"])
def test_what_is_not_whole_is_made_again(tmp_path: Path, damage: str) -> None:
    photos, options = PhotoShards([greys(tmp_path / "in.tar", 6)]), Options(batch=2, shard=3)
    out = tmp_path / "out"
    label(Task(photos, out, options), Panel([Brightness()]))
    before = rows(out)
    if damage == "cut":
        path = out / "labels-00001.tar"
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        (out / f"labels-00001.{damage}").unlink()
    (out / ".labels-00001.1.tar.partial").write_bytes(b"of a run that was killed")
    again = Brightness()
    label(Task(photos, out, options), Panel([again]))
    assert again.asked == 3
    assert rows(out) == before
    assert not list(out.glob(".*.partial"))


def test_processes_share_a_folder(tmp_path: Path) -> None:
    photos = PhotoShards([greys(tmp_path / "in.tar", 8)])
    label(Task(photos, tmp_path / "one", Options(shard=2)), Panel([Brightness()]))
    for part in (2, 1, 3):
        labelled = label(
            Task(photos, tmp_path / "three", Options(shard=2, part=(part, 3))),
            Panel([Brightness()]),
        )
        assert labelled.manifest["complete"] == (part == 3)
    assert rows(tmp_path / "three") == rows(tmp_path / "one")


def test_unreadable_photos_are_named_also_after_a_resume(tmp_path: Path) -> None:
    image = png(1)
    gif = io.BytesIO()
    Image.new("RGB", (8, 8)).save(gif, "GIF")
    shard = write_tar(
        tmp_path / "in.tar",
        [
            *(("a.png", image), ("b.png", b"no photo"), ("c.png", image[:40])),
            *(("d.png", gif.getvalue()), ("e.json", b"{}")),
            *(("f.png", image), ("f.json", b'{"captions": [')),
            *(("g.png", image), ("g.json", b"[" * 100_000)),
            *(("h.png", image), ("h.json", b'{"captions": null}'), ("i.png", b"")),
        ],
    )
    photos, options = PhotoShards([str(shard)], ("captions",)), Options(shard=4)
    for _ in range(2):
        left_out = label(Task(photos, tmp_path / "out", options), Panel([Brightness()])).left_out
        assert left_out == {
            "b": left_out["b"],
            "c": left_out["c"],
            "e": "has no image",
            "f": "its .json cannot be read",
            "g": "its .json cannot be read",
            "i": "has no image",
        }
        assert left_out["b"].startswith("is no photo that can be read (not an image, ")
        assert left_out["c"].startswith("is no photo that can be read (a damaged PNG ")
    assert keys(tmp_path / "out") == ["a", "d", "h"]


def test_a_folder_belongs_to_one_plan(tmp_path: Path) -> None:
    photos = PhotoShards([greys(tmp_path / "in.tar", 2)])
    label(Task(photos, tmp_path / "out"), Panel([Brightness()]))
    with pytest.raises(DataError, match=r"otherwise \(captions was 5, is 3\); .*new --out"):
        label(Task(photos, tmp_path / "out", Options(captions=3)), Panel([Brightness()]))
    more = PhotoShards([greys(tmp_path / "more.tar", 3)])
    with pytest.raises(DataError, match=r"images was \[\[\"in.tar\", \d+, 2\]\], is \[\[\"more"):
        label(Task(more, tmp_path / "out"), Panel([Brightness()]))
    (tmp_path / "out" / "plan.json").write_text("[]")
    with pytest.raises(DataError, match="nanocap was null"):
        label(Task(photos, tmp_path / "out"), Panel([Brightness()]))
    (tmp_path / "out" / "plan.json").write_text("{")
    with pytest.raises(DataError, match="not the plan of a labelling"):
        label(Task(photos, tmp_path / "out"), Panel([Brightness()]))


def test_a_teacher_whose_file_changed_is_another(tmp_path: Path) -> None:
    pattern, theirs = greys(tmp_path / "in.tar", 2), tmp_path / "theirs.jsonl"
    arguments = ["label", "--teacher", f"file:{theirs}", "--images", pattern]
    for text, code in (("A dog.", 0), ("A dog.", 0), ("A cat.", 1)):
        lines = [json.dumps({"image": f"p{n}", "caption": text}) for n in range(2)]
        theirs.write_text("\n".join(lines))
        result = CliRunner().invoke(group, [*arguments, "--out", str(tmp_path / "out")])
        assert result.exit_code == code, result.output
    assert "teachers was" in result.output


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "not a tar that can be read"),
        (lambda data: b"photos" * 1000, "not a tar that can be read"),
        (cut, "damaged or cut off after|not a tar"),
        (
            lambda data: data[:1024] + b"x" * 512 + data[1536:],
            "damaged or cut off after 1 photo|not a",
        ),
        (lambda data: data[: -len(data) % 512 - 10240 or None].rstrip(b"\0"), "cut off|not a tar"),
    ],
)
def test_shards_that_are_damaged(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = Path(greys(tmp_path / "in.tar", 4))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"in.tar: .*({message})") as caught:
        PhotoShards([str(path)])
    assert "\n" not in str(caught.value)


def test_two_photos_of_one_key_are_two_photos(tmp_path: Path) -> None:
    photos = [("a.png", b"1"), ("a.json", b"{}"), ("b.png", b"2"), ("a.png", b"3")]
    write_tar(tmp_path / "in.tar", photos)
    shards = PhotoShards([str(tmp_path / "in.tar")])
    assert [(photo.key, photo.data) for photo in shards.read(0, 3)] == [
        ("a", b"1"), ("b", b"2"), ("a_png", b"3"),
    ]  # fmt: skip


def test_shards_whose_files_are_apart(tmp_path: Path) -> None:
    write_tar(tmp_path / "in.tar", [("a.png", b""), ("b.png", b""), ("a.json", b"{}")])
    with pytest.raises(DataError, match=r"in.tar: the files of a are not adjacent"):
        PhotoShards([str(tmp_path / "in.tar")])
    with pytest.raises(DataError, match="no file matches"):
        PhotoShards([str(tmp_path / "*.zip")])
    with pytest.raises(DataError, match="no photos in it"):
        PhotoShards([str(write_tar(tmp_path / "none.tar", []))])


def test_any_stretch_of_photos_can_be_read(tmp_path: Path) -> None:
    for name, count in (("a", 3), ("b", 1), ("c", 4)):
        files = [(f"{name}{n}.png", b"x") for n in range(count)]
        write_tar(tmp_path / f"{name}.tar", files)
    photos = PhotoShards([str(tmp_path / "*.tar")])
    every = [photo.key for photo in photos.read(0, len(photos))]
    assert every == ["a0", "a1", "a2", "b0", "c0", "c1", "c2", "c3"]
    for first in range(8):
        for count in range(9 - first):
            found = [photo.key for photo in photos.read(first, count)]
            assert found == every[first : first + count]


def test_empty_and_endless_captions(tmp_path: Path) -> None:
    pattern, theirs = greys(tmp_path / "in.tar", 4, "  ", "so " * 10_000), tmp_path / "t.jsonl"
    texts = [["", " "], ["so " * 10_000], ["!!"], ["A dog runs. " + "so " * 10_000, "A dog."]]
    lines = [json.dumps({"image": f"p{n}", "captions": found}) for n, found in enumerate(texts)]
    theirs.write_text("\n".join(lines))
    result = CliRunner().invoke(
        group,
        ["label", "--teacher", f"file:{theirs}", "--images", pattern, "--out", str(tmp_path / "o")],
    )
    assert result.exit_code == 1
    assert "p0: left out: no teacher has a caption of it" in result.output
    assert "p1: left out: no teacher has a caption of it" in result.output
    assert "p2: left out: none of its captions was kept" in result.output
    (example,) = read_source(Source("labels", shards="*.tar"), tmp_path / "o")
    assert set(example.captions) == {"A dog runs.", "A dog."}
    log = (tmp_path / "o" / "labels-00000.decisions.jsonl").read_text()
    assert "no whole sentence within 100 words" in log
    assert len(log) < 20_000


@pytest.mark.parametrize("format", ["tar", "parquet"])
def test_rows_keep_their_level_from_the_teacher_to_the_batch(
    tmp_path: Path,
    write_recipe: Callable[..., Path],
    shards: Callable[..., str],
    drawn: Path,
    format: str,
) -> None:
    names = [json.loads(line) for line in (drawn / "captions.jsonl").read_text().splitlines()]
    photos = {f"p{n}": Image.open(drawn / name["image"]) for n, name in enumerate(names)}
    for teacher in "ab":
        said = [
            f"A {teacher if n % 2 else 'red'} circle with a blue square before a yellow dog"
            for n in range(len(names))
        ]
        said = [
            text if n % 3 else f"A {'dog' if teacher == 'a' else 'cat'}"
            for n, text in enumerate(said)
        ]
        lines = [json.dumps({"image": f"p{n}", "caption": text}) for n, text in enumerate(said)]
        (tmp_path / f"{teacher}.jsonl").write_text("\n".join(lines))
    teachers = [f"--teacher=file:{tmp_path / name}.jsonl" for name in "ab"]
    pattern, out = shards(photos), tmp_path / "out"
    arguments = ["label", *teachers, "--images", pattern, "--out", str(out), "--format", format]
    result = CliRunner().invoke(group, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["levels"] == {"high": 24, "low": 12}
    kind = "shards" if format == "tar" else "table"
    path = write_recipe(
        ('table = "captions.jsonl"', f'{kind} = "labels-00000.{format}"\nquality = "row"'),
        ("vocabulary = 80", "vocabulary = 45"),
        ("preset", f"# {format}\npreset"),
    )
    recipe = load_recipe(path)
    corpus = prepare(recipe, out, tmp_path / "cache")
    table = CaptionTable(recipe, corpus, 16)
    expected = [QUALITY["high" if n % 3 else "low"] for n in range(len(names))]
    assert table.quality == expected


def test_a_row_without_a_level_is_refused(tmp_path: Path) -> None:
    greys(tmp_path / "in.tar", 2, "a dog")
    with pytest.raises(DataError, match="p0 has the quality None, not one of high, medium, low"):
        list(read_source(Source("s", shards="in.tar", quality="row"), tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--teacher", "oracle:x"], "kinds are student, hf, file, ensemble"),
        (["--part", "9/8"], "part 9/8: must be from 1/N to N/N"),
        (["--part", "all"], "--part all: must be I/N"),
        (["--detector", "x.onnx"], "--detector and --detector-labels belong together"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"image": "p0", "caption": "A dog."}')
    given = ["--images", greys(tmp_path / "in.tar", 1), "--out", str(tmp_path / "out")]
    given += [] if "--teacher" in arguments else ["--teacher", f"file:{tmp_path / 't.jsonl'}"]
    result = CliRunner().invoke(group, ["label", *given, *arguments])
    assert (result.exit_code, message in result.output) == (2, True), result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["captions", "batch", "shard"])
def test_numbers_start_at_one(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} must be at least 1, not 0"):
        Options(**{name: 0})


def start(*arguments: object, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nanocap", "label", *map(str, arguments)],
        # a disk that is full must not leave Python half of a compiled module, which it would keep
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="limits on files are POSIX")
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    import resource

    (tmp_path / "t.jsonl").write_text(
        "\n".join(json.dumps({"image": f"p{n}", "caption": "A dog runs."}) for n in range(40))
    )
    pattern, out = greys(tmp_path / "in.tar", 40), tmp_path / "out"
    arguments = ["--teacher", f"file:{tmp_path / 't.jsonl'}", "--images", pattern, "--out", out]
    process = start(
        *arguments,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert printed.count("\n") == 1, printed
    assert "labels-00000.tar: cannot be written (File too large)" in printed
    assert [path.name for path in out.iterdir()] == ["plan.json"]
    process = start(*arguments)  # once there is room
    assert process.wait(timeout=120) == 0
    assert len(keys(out)) == 40


def kill_and_go_on(
    kills: int, student: Path, tmp_path: Path, photos: int, random: random.Random
) -> None:
    """Kill a run that often, at moments of every kind, and compare with one that was left alone."""
    pattern = greys(tmp_path / "in.tar", photos, "a dog runs on the grass")
    options = ("--batch-size", 2, "--shard-size", 4, "--captions", 3, "--device", "cpu")
    given = ["--teacher", f"student:{student}", "--images", pattern, *options]
    whole = start(*given, "--out", tmp_path / "whole")
    killed, died = tmp_path / "killed", 0
    for _ in range(kills):
        process, before = start(*given, "--out", killed), len(list(killed.glob("labels-*.tar")))
        target = before + random.randint(0, 2)
        while process.poll() is None and len(list(killed.glob("labels-*.tar"))) < target:
            time.sleep(0.001)
        if not target - before:  # while it starts, claims the folder, or asks for the first time
            while process.poll() is None and not (killed / "plan.json").exists():
                time.sleep(0.001)
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        died += process.returncode == -signal.SIGKILL
    assert died, "every run was over before it could be killed"
    last = start(*given, "--out", killed)
    printed, _ = last.communicate(timeout=300)
    assert last.returncode == 0, printed
    whole.communicate(timeout=300)
    assert rows(killed) == rows(tmp_path / "whole")
    assert keys(killed) == [f"p{n}" for n in range(photos)]
    assert not list(killed.glob(".*.partial"))


def test_a_killed_run_ends_with_the_same_rows(checkpoints: list[Path], tmp_path: Path) -> None:
    kill_and_go_on(2, checkpoints[0], tmp_path, 60, random.Random(1))


@pytest.mark.slow
def test_a_run_killed_many_times_ends_with_the_same_rows(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    kill_and_go_on(25, checkpoints[0], tmp_path, 200, random.Random(2))


def test_the_command_labels_with_an_ensemble(checkpoints: list[Path], tmp_path: Path) -> None:
    teacher = "ensemble:" + ",".join(map(str, checkpoints))
    pattern = greys(tmp_path / "in.tar", 5)
    arguments = ["--teacher", teacher, "--images", pattern, "--captions", "3", "--json"]
    result: Result = CliRunner().invoke(
        group, ["label", *arguments, "--out", str(tmp_path / "labels")]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["photos"], told["left_out"], sum(told["levels"].values())) == (5, 0, 5)
    read = list(read_source(Source("labels", shards="labels/*.tar"), tmp_path))
    assert [one.key for one in read] == [f"p{index}" for index in range(5)]
    assert all(1 <= len(set(one.captions)) == len(one.captions) <= 3 for one in read)


def test_a_pool_keeps_the_origin_of_its_members(tmp_path: Path) -> None:
    for name, text in (("a", "A dog runs."), ("b", "A brown dog.")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"image": "p0", "caption": text}))
    members = [f"file:{tmp_path / name}.jsonl" for name in "ab"]
    pattern = greys(tmp_path / "in.tar", 1)
    for name, teachers in (
        ("pool", [f"--teacher=ensemble:{','.join(members)}"]),
        ("two", [f"--teacher={member}" for member in members]),
    ):
        result = CliRunner().invoke(
            group, ["label", *teachers, "--images", pattern, "--out", str(tmp_path / name)]
        )
        assert result.exit_code == 0, result.output
    assert rows(tmp_path / "pool") == rows(tmp_path / "two")
    log = json.loads((tmp_path / "two" / "labels-00000.decisions.jsonl").read_text())
    assert {one["teacher"] for one in log["kept"] + log["dropped"]} == set(members)


def test_an_error_of_the_teacher_goes_through(tmp_path: Path) -> None:
    class Broken(Brightness):
        def caption(self, images: Sequence[Image.Image], n: int) -> list[list[Scored]]:
            raise NanocapError("out of order")

    photos = PhotoShards([greys(tmp_path / "in.tar", 300)])
    with pytest.raises(NanocapError, match="out of order"):
        label(Task(photos, tmp_path / "out", Options(batch=2)), Panel([Broken()]))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plan.json"]


def test_workers_without_ray_are_refused(tmp_path: Path) -> None:
    pattern = greys(tmp_path / "in.tar", 1)
    arguments = ["label", "--teacher", "file:x.jsonl", "--images", pattern, "--workers", "2"]
    result = CliRunner().invoke(group, [*arguments, "--out", str(tmp_path / "labels")])
    assert result.exit_code != 0
    assert "--workers are Ray's: add --engine ray" in result.stderr
