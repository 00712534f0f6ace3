"""All figures together, two captioners side by side, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from nanocap.cli import group
from nanocap.measure.metrics.evaluation import Evaluation, compare, evaluate, oddities

ANIMALS = ("dog", "cat", "horse", "bird", "cow", "sheep", "fox", "goat", "duck", "frog")
PLACES = ("grass", "water", "snow", "street")
REFERENCES = {
    f"{animal}-{place}": [f"A {animal} runs through the {place}.", f"the {animal} in the {place}"]
    for animal in ANIMALS
    for place in PLACES
}
RIGHT = {key: texts[0] for key, texts in REFERENCES.items()}
VAGUE = {key: f"A {key.split('-')[0]} stands somewhere." for key in REFERENCES}


def quick(captions: dict[str, str]) -> Evaluation:
    """Without METEOR, which reads its tables for seconds."""
    references = {key: REFERENCES[key] for key in captions}
    return evaluate(captions, references, scorers=("cider", "bleu", "rouge"))


def test_the_better_captions_win_and_the_wordier_are_not_called_better() -> None:
    right, vague = quick(RIGHT), quick(VAGUE)
    rows = {row.key: row for row in compare(right, vague)}
    for key in ("cider", "bleu4", "rouge_l", "distinct", "objects_recall", "relations_f1"):
        assert rows[key].verdict == "first", key
    assert rows["words"].verdict == "they differ"
    assert {row.key: row.verdict for row in compare(vague, right)}["cider"] == "second"


def test_objects_that_nobody_saw_are_hallucinated() -> None:
    wrong = {key: f"A zebra and {text[2:]}" for key, text in RIGHT.items()}
    [row] = [row for row in compare(quick(RIGHT), quick(wrong)) if row.key == "hallucination"]
    assert row.first.value == 0
    assert row.second.value == pytest.approx(100 / 3, abs=1)  # zebra, of three objects each
    assert row.verdict == "first"


def test_the_best_of_several_captions() -> None:
    """Vague captions first, right ones second: the best of both is as good as the right ones."""
    both = {key: [VAGUE[key], RIGHT[key]][: 1 + index % 2] for index, key in enumerate(RIGHT)}
    best = {key: texts[-1] for key, texts in both.items()}
    scored = evaluate(VAGUE, REFERENCES, scorers=("cider",), candidates=both).to_dict()["figures"]
    assert scored["oracle_cider"] == quick(best).to_dict()["figures"]["cider"]
    assert scored["oracle_cider"]["value"] > scored["cider"]["value"] + 50


def test_the_order_of_photos_does_not_matter() -> None:
    reversed_keys = dict(reversed(list(RIGHT.items())))
    first, second = quick(RIGHT), quick(reversed_keys)
    assert first.to_dict() == second.to_dict()
    assert all(row.verdict == "no difference" for row in compare(first, second))


def test_only_the_same_photos_are_compared() -> None:
    some = dict(list(RIGHT.items())[:30])
    with pytest.raises(ValueError, match="same photos"):
        compare(quick(RIGHT), quick(some))


def test_oddities() -> None:
    captions = {
        "a": "A dog.",
        "b": " ",
        "c": "собака бежит",
        "d": "Ein Hündchen",
        "e": "12 犬 dogs",
    }
    assert oddities(captions) == {"empty": ["b"], "in another script than Latin": ["c"]}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photos with references, one caption a line."""
    lines = []
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        lines.append({"image": f"{index}.png", "captions": list(REFERENCES.values())[index]})
    write(tmp_path / "references.jsonl", lines)
    return tmp_path


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


QUICK = ("--skip", "meteor", "--skip", "spice")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["eval", *map(str, arguments)])


def read(result: Result) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_shipped_model_is_scored_with_intervals(photos: Path) -> None:
    out = photos / "out.jsonl"
    result = run("--data", photos / "references.jsonl", "--json", "--captions", out)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["photos"] == 6
    assert found["left_out"] == 0
    assert {"cider", "bleu1", "bleu4", "rouge_l", "meteor", "distinct"} <= found["figures"].keys()
    for figure in found["figures"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert "SPICE" in found["missing"]
    [again] = read(run(out, "--data", photos / "references.jsonl", "--json", *QUICK))
    assert "METEOR" not in again["missing"]
    for key, figure in again["figures"].items():  # captions from a file are scored as the bundle's
        assert figure == found["figures"][key]


def test_two_files_of_captions_are_compared(photos: Path) -> None:
    files = []
    for name, texts in (("right", RIGHT), ("vague", VAGUE)):
        captions = list(texts.values())[:6]
        lines = [{"image": f"{i}.png", "caption": text} for i, text in enumerate(captions)]
        files.append(write(photos / f"{name}.jsonl", lines))
    result = run(*files, "--data", photos / "references.jsonl", *QUICK)
    assert result.exit_code == 0, result.output
    [row] = [line for line in result.output.splitlines() if line.startswith("ROUGE-L")]
    assert row.endswith(str(files[0]))
    assert "6 photos, 0 left out" in result.output
    [compared] = read(run(*files, "--data", photos / "references.jsonl", "--json", *QUICK))
    assert compared["compared"]["rouge_l"]["verdict"] == "first"


def test_whatever_does_not_fit_is_one_line_each_and_counted(photos: Path) -> None:
    lines = [json.loads(line) for line in (photos / "references.jsonl").read_text().splitlines()]
    lines += [{"image": "gone.png", "captions": ["a photo that is not there"]}]
    lines += [{"image": "5.png", "captions": []}]
    write(photos / "references.jsonl", [*lines[:5], *lines[6:]])
    captions = [{"image": f"{index}.png", "caption": "A dog."} for index in range(4)]
    captions[1]["caption"] = ""
    captions[2]["caption"] = "собака"
    captions += [{"image": "stray.png", "caption": "A cat."}, {"image": "4.png", "error": "empty"}]
    ours = write(photos / "ours.jsonl", captions)
    result = run(ours, "--data", photos / "references.jsonl", *QUICK)
    assert result.exit_code == 1
    for line in (
        "gone.png: left out: its photo cannot be read",
        "5.png: left out: has no reference captions",
        "stray.png: left out: ",
        "4.png: left out: ",
        "1 captions are empty (first: '1.png')",
        "1 captions are in another script than Latin (first: '2.png')",
        "4 photos, 4 left out",
    ):
        assert sum(line in shown for shown in result.output.splitlines()) == 1, line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": "0.png", "caption": "x"}\n' * 2, "0.png appears twice"),
        ('{"image": "0.png"}\n', 'line 1: needs "caption", a text, or "captions"'),
        ('{"image": 3, "caption": "x"}\n', 'line 1: needs "image", the key or the path'),
        ("[5]", "entry 1: not an object"),
        ("{", "line 1: not JSON"),
    ],
)
def test_captions_that_are_none(photos: Path, text: str, message: str) -> None:
    (photos / "ours.jsonl").write_text(text)
    result = run(photos / "ours.jsonl", "--data", photos / "references.jsonl")
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_two_photos_of_one_name(photos: Path) -> None:
    lines = (photos / "references.jsonl").read_text()
    (photos / "references.jsonl").write_text(lines + lines.splitlines()[0] + "\n")
    result = run("--data", photos / "references.jsonl")
    assert (result.exit_code, "two photos have this key" in result.output) == (1, True)


def test_at_most_two(photos: Path) -> None:
    result = run("a.jsonl", "b.jsonl", "c.jsonl", "--data", photos / "references.jsonl")
    assert result.exit_code == 2
