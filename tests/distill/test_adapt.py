"""Adapting targets to what a student sees: by its probabilities, and by what they do to a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from nanocap.cli import group
from nanocap.distill.data.augment import squash
from nanocap.distill.data.feature_cache import normalize as to_pixels
from nanocap.distill.data.tokenizer import encode
from nanocap.distill.labelling.adaptation import NOTHING, Eyes, adapt, drop_unseen
from nanocap.distill.labelling.decision import Candidate, Decision
from nanocap.distill.labelling.photos import PhotoShards
from nanocap.student import Student
from nanocap.student.controls import LENGTH, QUALITY
from nanocap.student.decoder import Decoder
from nanocap.student.evidence import Seen

Writer = Callable[[dict[str, Image.Image]], str]


def noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def photos(shards: Writer) -> PhotoShards:
    return PhotoShards([shards({f"p{seed}": noise(seed) for seed in range(10)})])


def log_probability(decoder: Decoder, seen: Seen, ids: Sequence[int]) -> list[float]:
    """Of each piece, by single steps of the cached decoder."""
    memory = decoder.cross(seen)
    positions, width = decoder.positions.shape
    keys = values = torch.zeros(len(decoder.layers), 1, positions, width)
    fed, logs = [QUALITY["high"], LENGTH["any"], *ids], []
    for position, token in enumerate(fed[:-1]):
        tokens, place = torch.tensor([[token]]), torch.tensor([position])
        logits, _, keys, values = decoder.step(tokens, place, memory, keys, values)
        if position >= 1:
            logs.append(float(logits[0, 0].log_softmax(-1)[fed[position + 1]]))
    return logs


def test_a_gain_is_the_log_of_how_much_likelier_a_word_is_than_with_other_photos(
    checkpoints: list[Path], photos: PhotoShards
) -> None:
    eyes = Eyes.load(checkpoints[0], photos)
    assert len(eyes.strangers.tokens) == 8
    text = "a red circle on a blue square"
    [[found]] = eyes.gains([noise(77)], [[text]])
    assert len(found) == len(text.split())

    student, _ = Student.load(checkpoints[0])
    tokenizer, size = eyes.student.tokenizer, student.dimensions.image_size
    [ids] = encode(tokenizer, [text], student.dimensions.max_tokens - 2)
    with torch.no_grad():
        seen = student.encoder(to_pixels(squash(noise(77), size)[None]))
        ours = log_probability(student.decoder, seen, ids)
        strangers = (eyes.strangers.some(torch.tensor([photo])) for photo in range(8))
        others = [log_probability(student.decoder, one, ids) for one in strangers]
    mean = [log(sum(np.exp(column)) / len(others)) for column in zip(*others, strict=True)]
    assert sum(found) == pytest.approx(sum(ours[:-1]) - sum(mean[:-1]), abs=1e-4)  # not the end


def test_a_student_that_looks_at_nothing_gains_nothing(
    checkpoints: list[Path], photos: PhotoShards
) -> None:
    eyes = Eyes.load(checkpoints[0], photos)
    with torch.no_grad():
        for layer in eyes.student.students[0].decoder.layers:
            layer.cross_out.weight.zero_()
            layer.cross_out.bias.zero_()
    [[found]] = eyes.gains([noise(3)], [["a red circle"]])
    assert found == pytest.approx([0, 0, 0], abs=1e-5)
    decision = Decision("photo", (), (Candidate("a red circle"), Candidate("a dog runs")))
    [kept] = adapt([decision], [noise(3)], eyes)
    assert kept == decision  # it is the student that is blind


@pytest.mark.parametrize(
    ("text", "unseen", "left"),
    [
        ("A brown dog runs across the grass.", "", "A brown dog runs across the grass."),
        ("A brown dog runs across the grass.", "brown", "A dog runs across the grass."),
        ("A brown dog runs across the grass.", "grass", "A brown dog runs"),
        ("A girl in a blue dress holds a cup.", "cup", "A girl in a blue dress"),
        (
            "A girl in a very colorful dress holds a cup.",
            "colorful",
            "A girl in a dress holds a cup.",
        ),
        ("Three black dogs swim in murky water.", "murky", "Three black dogs swim in water."),
        ("A man in a hat rides a horse.", "hat", "A man rides a horse."),
    ],
)
def test_what_the_student_does_not_see_goes(text: str, unseen: str, left: str) -> None:
    words = text.lower().rstrip(".").split()
    gains = [-1.0 if word in unseen.split() else 1.0 for word in words]
    found = drop_unseen(Candidate(text), gains)
    assert (found.text.rstrip("."), found.dropped) == (left.rstrip("."), "")
    assert bool(found.notes) == bool(unseen)
    if unseen:
        assert unseen in found.notes[-1]


def test_where_nothing_is_left_the_caption_is_dropped() -> None:
    text = "A brown dog runs across the grass."
    found = drop_unseen(Candidate(text), [-1.0] * 7)
    assert (found.text, found.dropped) == (text, NOTHING)


def test_what_the_student_could_not_read_to_its_end_is_left_alone() -> None:
    text = "A dog runs across the grass near a river."
    assert drop_unseen(Candidate(text), [1.0, 1.0, 1.0]).text == text


def test_captions_that_become_equal_are_one(checkpoints: list[Path], photos: PhotoShards) -> None:
    class Sees(Eyes):
        """Sees everything but colours."""

        def gains(
            self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]
        ) -> list[list[list[float]]]:
            colours = ("red", "blue")
            return [
                [[-1.0 if word in colours else 1.0 for word in one.split()] for one in several]
                for several in texts
            ]

    eyes = Eyes.load(checkpoints[0], photos)
    eyes = Sees(eyes.student, eyes.path, eyes.strangers)
    both = (Candidate("a red dog runs fast"), Candidate("a blue dog runs fast"))
    decision = Decision("photo", (), (*both, Candidate("gone", dropped="before")))
    empty = replace(decision, key="empty", candidates=())
    found, same = adapt([decision, empty], [noise(0), noise(1)], eyes)
    assert [one.text for one in found.kept] == ["a dog runs fast"]
    assert len(found.candidates) == 3
    assert same == empty


def test_the_command_adapts_and_holds_on_to_the_student(
    checkpoints: list[Path], shards: Writer, tmp_path: Path
) -> None:
    pattern = shards({f"p{seed}": noise(seed) for seed in range(4)})
    captions = tmp_path / "captions.jsonl"
    texts = ["a brown dog runs across the grass", "a man in a hat rides a horse"]
    lines = [json.dumps({"image": f"p{n}", "captions": texts}) for n in range(4)]
    captions.write_text("\n".join(lines), encoding="utf-8")
    arguments = ["label", "--teacher", f"file:{captions}", "--images", pattern]
    made = {}
    for name in ("one", "two"):
        out = tmp_path / name
        adapted = ["--adapt", str(checkpoints[0]), "--out", str(out)]
        result = CliRunner().invoke(group, [*arguments, *adapted])
        assert result.exit_code == 0, result.output
        assert json.loads((out / "manifest.json").read_text())["seconds"]["adapt"] > 0
        made[name] = (out / "labels-00000.decisions.jsonl").read_text()
    assert made["one"] == made["two"]
    result = CliRunner().invoke(group, [*arguments, "--out", str(tmp_path / "one")])
    assert result.exit_code != 0
    assert "holds labels made otherwise (evidence was" in result.stderr
