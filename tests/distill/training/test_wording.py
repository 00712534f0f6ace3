"""Fewer worn phrases by the last bias."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from nanocap.distill.data.corpus import Corpus
from nanocap.distill.recipes.recipe import Recipe, Stage
from nanocap.distill.training import wording
from nanocap.distill.training.run import Run, Start
from nanocap.distill.training.trainer import train
from nanocap.distill.training.wording import ALLOWED, HALF, last_bias, worn_pieces
from nanocap.student import Student

PEOPLE = {str(row): ["the red square lies on the left", "a small red square"] for row in range(20)}


def test_a_worn_word_is_one_that_people_say_least_and_no_object(corpus: Corpus) -> None:
    """Of "square before a", "before" may be dearer: "a" is needed, and a square is there or not."""
    said = dict.fromkeys(PEOPLE, "square before a")
    people = {row: ["a square on a background", "a square"] for row in PEOPLE}
    (found,) = worn_pieces(said, people, corpus).items()
    assert corpus.tokenizer.id_to_token(found[0]) == "\u2581before"
    assert found[1] == pytest.approx(HALF * math.log(100 / (0 + ALLOWED)))


def test_what_people_say_as_often_is_not_worn(corpus: Corpus) -> None:
    said = {row: captions[0] for row, captions in PEOPLE.items()}
    assert worn_pieces(said, {row: [text] for row, text in said.items()}, corpus) == {}


def test_the_last_bias_changes_the_logits_that_it_should() -> None:
    torch.manual_seed(0)
    embedding = torch.randn(2000, 64) / 8
    usage = torch.zeros(2000)
    usage[:40] = 0.3
    wanted = torch.zeros(2000)
    wanted[:3] = torch.tensor([-0.5, -1.0, -2.0])
    change = embedding @ last_bias(embedding, wanted, usage)
    torch.testing.assert_close(change[:3], wanted[:3], atol=0.1, rtol=0.1)
    assert change[3:40].abs().max() < 0.2


def test_a_stage_changes_one_bias_and_nothing_else(
    recipe: Recipe,
    corpus: Corpus,
    checkpoints: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wording, "COMMON", 0.9)  # half of these captions have every word
    before, metadata = Student.load(checkpoints[0])
    piece = corpus.tokenizer.token_to_id("\u2581before")
    embedding = before.decoder.embedding.weight.detach()
    with torch.no_grad():  # it says this word and no other
        before.decoder.norm.bias += 9 * embedding[piece] / embedding[piece].square().sum()
    before.save(checkpoints[0], metadata)
    start = Start(checkpoints[0])
    stage = Stage("wording", "wording", steps=2)
    after = replace(recipe, stages=(stage,), start=str(start.path), imagenet="")
    run = Run(after, corpus, tmp_path / "run", tmp_path, start=start)
    reworded = Student.load(train(run, Accelerator(cpu=True)))[0].state_dict()
    old = before.state_dict()
    changed = {name for name, tensor in reworded.items() if not torch.equal(tensor, old[name])}
    assert changed == {"decoder.norm.bias"}
    change = embedding @ (reworded["decoder.norm.bias"] - old["decoder.norm.bias"])
    assert int(change.argmin()) == piece
    assert change[piece] < -1
