"""A whole run, from drawn photos to a student, through the command; and what a kill does to it."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from nanocap.cli import group
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.recipes.recipe import Recipe, load_recipe
from nanocap.distill.training.checkpoint import Position, save_checkpoint
from nanocap.distill.training.run import Run
from nanocap.student import Student

STEPS = 9 + 6 + 6  # of the recipe's three stages


class Writer(Protocol):
    def __call__(self, *replacements: tuple[str, str], stages: int = 3) -> Path: ...


@dataclass(frozen=True)
class Finished:
    """An uninterrupted run."""

    out: Path
    printed: str


@pytest.fixture(scope="module")
def finished(program: Any, recipe_text: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "recipe.toml").write_text(recipe_text, encoding="utf-8")
    printed = program.run(folder / "recipe.toml", folder / "run")
    return Finished(folder / "run", printed)


def metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of the journal without what a clock decides."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key != "seconds"} for line in lines]


def assert_same_run(out: Path, finished: Finished) -> None:
    """Losses, rewards and weights are those of the uninterrupted run, to the last bit."""
    assert metrics(out) == metrics(finished.out)
    for path in sorted(finished.out.glob("*.safetensors")):
        ours, theirs = load_file(out / path.name), load_file(path)
        assert ours.keys() == theirs.keys()
        different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
        assert not different, f"{path.name}: {different}"


def assert_whole(out: Path) -> None:
    """Whatever stands under a final name can be read to its end."""
    for path in out.rglob("*"):
        if any(part.startswith(".") for part in path.relative_to(out).parts):
            continue  # partial files and folders, under names of their own
        if path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".npy":
            assert np.isfinite(np.load(path)).all()
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        elif path.name.startswith("corpus-"):
            corpus = Corpus(path)
            assert [corpus.photo(index).size for index in range(36)] == [(80, 60)] * 36


def kill_after(program: Any, recipe: Path, out: Path, lines: int) -> int:
    """Start the command, SIGKILL it once the journal has so many lines; the exit code."""
    process = program.start(recipe, out)
    journal = out / "metrics.jsonl"
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
            process.kill()
            break
        time.sleep(0.005)
    process.communicate()
    return int(process.returncode)


def test_a_run_ends_with_a_student_that_describes_itself(
    finished: Finished, corpus: Corpus
) -> None:
    assert sorted(path.name for path in finished.out.iterdir()) == [
        "cache",
        "curves.png",
        "metrics.jsonl",
        "stage-0-maps.safetensors",
        "stage-1-end-to-end.safetensors",
        "stage-2-self-critical.safetensors",
        "student.safetensors",
    ]
    assert_whole(finished.out)
    student, header = Student.load(finished.out / "student.safetensors")
    assert student.dimensions.visual_tokens == 8
    assert student.dimensions.vocabulary == 80
    assert Tokenizer.from_str(header["tokenizer"]).to_str() == corpus.tokenizer.to_str()
    assert json.loads(header["controls"]) == {
        "quality": {"high": 3, "medium": 4, "low": 5},
        "length": {"any": 6, "short": 7, "long": 8},
    }
    training = json.loads(header["training"])
    assert training["recipe"] == "shapes"
    assert training["seed"] == 3
    assert training["steps"] == {"maps": 9, "end-to-end": 6, "self-critical": 6}
    assert training["data"] == [{"name": "shapes", "licence": "drawn by a test"}]
    assert training["weights"] == []


def test_the_journal_has_every_step(finished: Finished) -> None:
    lines = metrics(finished.out)
    assert [(line["stage"], line["step"]) for line in lines] == [
        *((0, step) for step in range(9)),
        *((1, step) for step in range(6)),
        *((2, step) for step in range(6)),
    ]
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert lines[8]["loss"] < lines[0]["loss"]
    assert [line["step"] for line in lines if "cider" in line] == [4, 8]  # every 5, and the last
    assert all(("reward" in line) == (line["stage"] == 2) for line in lines)


def test_what_the_command_prints(finished: Finished) -> None:
    lines = finished.printed.splitlines()
    assert lines[-1] == str(finished.out / "student.safetensors")
    assert "shapes: 36 photos, 6 set aside" in lines
    for label in ("reading shapes", "caching feature maps of shapes, view 1", "training maps"):
        assert label in lines


def test_a_stage_starts_from_the_averaged_weights_of_the_one_before(finished: Finished) -> None:
    """The first loss of the second stage is near the last of the first, not near the very first."""
    states = [load_file(path) for path in sorted(finished.out.glob("stage-*.safetensors"))]
    name = "encoder.trunk.stem.weight"  # trained by the second stage only
    assert torch.equal(states[2][name], states[1][name])
    assert not torch.equal(states[1][name], states[0][name])
    lines = metrics(finished.out)
    assert lines[9]["loss"] < lines[0]["loss"]


def test_the_last_stage_is_the_student(finished: Finished) -> None:
    last = load_file(finished.out / "stage-2-self-critical.safetensors")
    final = load_file(finished.out / "student.safetensors")
    assert all(torch.equal(final[name], last[name]) for name in final)


def test_a_killed_run_goes_on_as_if_nothing_had_been(
    finished: Finished, program: Any, write_recipe: Writer, tmp_path: Path
) -> None:
    """Killed past the first checkpoint, and again in the self-critical stage, past its own."""
    moments = (6, 9 + 6 + 5)  # lines of the journal
    recipe, out = write_recipe(), tmp_path / "run"
    for index, lines in enumerate(moments):
        code = kill_after(program, recipe, out, lines)
        assert code == -signal.SIGKILL or index == 1  # at the very end it may be quicker than us
        assert_whole(out)
    printed = program.run(recipe, out)
    assert printed.splitlines()[-1] == str(out / "student.safetensors")
    assert_same_run(out, finished)


@pytest.mark.slow
def test_kills_at_twenty_random_moments(
    finished: Finished, program: Any, write_recipe: Writer, tmp_path: Path
) -> None:
    """From the first import to the last file; half of them once the journal has begun to grow."""
    recipe, out = write_recipe(("checkpoint = 4", "checkpoint = 2")), tmp_path / "run"
    chance, killed = random.Random(0), 0
    while killed < 20:
        process = program.start(recipe, out)
        if killed % 2:
            before = journal_size(out)
            while process.poll() is None and journal_size(out) == before:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 1.0))
        else:
            time.sleep(chance.uniform(0, 8))
        process.kill()
        process.communicate()
        assert_whole(out)
        if (out / "student.safetensors").exists():  # sooner than expected: once more from nothing
            assert_same_run(out, finished)
            shutil.rmtree(out)
        killed += 1
    program.run(recipe, out)
    assert_same_run(out, finished)


def journal_size(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def test_a_finished_run_is_left_alone(finished: Finished, drawn: Path) -> None:
    before = metrics(finished.out)
    stages = {p: p.stat().st_mtime_ns for p in finished.out.glob("stage-*")}
    result = invoke(finished.out.parent / "recipe.toml", "--out", finished.out, "--data", drawn)
    assert result.exit_code == 0
    assert metrics(finished.out) == before
    assert {p: p.stat().st_mtime_ns for p in stages} == stages


def invoke(*arguments: str | Path) -> Result:
    """The command in this process, for what ends before it trains."""
    return CliRunner().invoke(group, ["distill", *map(str, arguments), "--precision", "fp32"])


def refused(result: Result) -> str:
    """The one line that a refusal prints."""
    assert result.exit_code != 0
    lines = [line for line in result.stderr.splitlines() if line.startswith("nanocap: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.stderr
    return lines[0].removeprefix("nanocap: ")


@pytest.mark.parametrize("change", [("seed = 3", "seed = 4"), ("views = 2", "views = 1")])
def test_a_recipe_changed_after_a_stage_ended_is_refused(
    finished: Finished, write_recipe: Writer, drawn: Path, change: tuple[str, str]
) -> None:
    out, recipe = finished.out, write_recipe(change)
    result = invoke(recipe, "--out", out, "--data", drawn)
    assert result.exit_code == 2
    assert refused(result) == (
        f"{out}/stage-0-maps.safetensors: made by another recipe; "
        "choose another --out, or delete it to redo it"
    )


def test_a_checkpoint_of_another_recipe_is_refused(
    finished: Finished, write_recipe: Writer, drawn: Path, tmp_path: Path, recipe: Recipe
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    student = Student(recipe.dimensions())
    empty: dict[str, Tensor] = {}
    optimizer = torch.optim.AdamW(student.parameters())
    checkpoint = out / "checkpoint.safetensors"
    save_checkpoint(checkpoint, Position(0, 4, "another"), student, empty, optimizer)
    cache = finished.out / "cache"
    result = invoke(write_recipe(), "--out", out, "--data", drawn, "--cache", cache)
    assert result.exit_code == 2
    assert refused(result).startswith(f"{checkpoint}: made by another recipe; choose another --out")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    result = invoke(write_recipe(), "--out", out, "--data", drawn, "--cache", cache)
    assert result.exit_code == 1
    assert refused(result) == f"{checkpoint}: damaged checkpoint; delete it to redo this stage"


def test_stages_that_have_not_begun_may_still_change(recipe: Recipe, corpus: Corpus) -> None:
    changed = replace(recipe, stages=(*recipe.stages[:2], replace(recipe.stages[2], lr=1e-5)))
    ours, theirs = (Run(r, corpus, Path("out"), Path("cache")) for r in (recipe, changed))
    assert [ours.fingerprint(i) == theirs.fingerprint(i) for i in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (("seed = 3", "sed = 3"), 2, "unknown key 'sed' in the recipe; did you mean 'seed'?"),
        (('table = "captions.jsonl"', 'shards = "*.tar"'), 1, "no file matches "),
        (
            ("vocabulary = 80", "vocabulary = 12"),
            1,
            "have more characters than data.voc",
        ),
        (('imagenet = ""', 'imagenet = "resnet"'), 2, "imagenet 'resnet' is unknown; known are"),
    ],
)
def test_one_line_for_what_cannot_be(
    write_recipe: Writer,
    drawn: Path,
    tmp_path: Path,
    change: tuple[str, str],
    code: int,
    message: str,
) -> None:
    result = invoke(write_recipe(change), "--out", tmp_path / "run", "--data", drawn)
    assert result.exit_code == code
    assert message in refused(result)


def test_few_captions_make_a_student_of_few_pieces(
    write_recipe: Writer, drawn: Path, tmp_path: Path
) -> None:
    greedy = write_recipe(("vocabulary = 80", "vocabulary = 9000"), stages=1)
    result = invoke(greedy, "--out", tmp_path / "run", "--data", drawn)
    assert result.exit_code == 0, result.output
    student, header = Student.load(tmp_path / "run" / "student.safetensors")
    pieces = Tokenizer.from_str(header["tokenizer"]).get_vocab_size()
    assert student.dimensions.vocabulary == pieces < 9000
    assert f"vocabulary: {pieces} pieces, the captions have no 9000" in result.stderr


def test_only_preparing(
    finished: Finished, write_recipe: Writer, drawn: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = invoke(write_recipe(), "--out", out, "--data", drawn, "--prepare-only", "--json")
    assert result.exit_code == 0
    [name] = [path.name for path in (finished.out / "cache").glob("corpus-*")]
    assert json.loads(result.stdout) == {"result": str(out / "cache" / name)}
    assert len(Corpus(out / "cache" / name).rows) == 36


def test_once_prepared_the_photos_are_not_read_again(
    program: Any, write_recipe: Writer, drawn: Path, tmp_path: Path
) -> None:
    data = tmp_path / "photos"
    data.mkdir()
    (data / "captions.jsonl").write_bytes((drawn / "captions.jsonl").read_bytes())
    shutil.copytree(drawn / "photos", data / "photos")
    recipe = write_recipe(("steps = 9", "steps = 1"), stages=1)
    prepared = invoke(recipe, "--out", tmp_path / "run", "--data", data, "--prepare-only")
    assert prepared.exit_code == 0
    shutil.rmtree(data)
    replace(program, data=data).run(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "student.safetensors").exists()


@pytest.mark.slow
def test_two_processes_do_the_work_of_one(
    program: Any, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = write_recipe(("batch = 8", "batch = 8\ndropout = 0.0"), stages=2)
    assert {stage.dropout for stage in load_recipe(recipe).stages} == {0.0}
    program.run(recipe, tmp_path / "one")
    replace(program, cpus=2).run(recipe, tmp_path / "two")
    ours, theirs = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert [line["loss"] for line in ours] == pytest.approx(
        [line["loss"] for line in theirs], abs=1e-4
    )
    assert_whole(tmp_path / "two")
    weights = load_file(tmp_path / "two" / "student.safetensors")
    for name, tensor in load_file(tmp_path / "one" / "student.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_two_processes_share_a_self_critical_stage(
    program: Any, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    replace(program, cpus=2).run(write_recipe(), tmp_path / "run")
    assert len(metrics(tmp_path / "run")) == STEPS
    assert_whole(tmp_path / "run")
