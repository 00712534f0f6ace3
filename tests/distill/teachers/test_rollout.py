"""Captions drawn from the student."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from nanocap.distill.data.corpus import Corpus
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.teachers.rollout import roll_out, to_texts
from nanocap.student import Student
from nanocap.student.controls import END, SPECIALS
from nanocap.student.evidence import Seen


@pytest.fixture
def student(recipe: Recipe) -> Student:
    student = Student(recipe.dimensions()).eval()
    for parameter in student.decoder.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)  # opinions, if no good ones
    return student


@torch.no_grad()
def logits_after(student: Student, visual_BNC: Tensor, row: list[int]) -> Tensor:
    """Logits [V] of what follows `row`, from a full pass, what may not be drawn left out: what is
    no text, and an end before the first piece."""
    memory = student.decoder.cross(Seen.plain(visual_BNC))
    logits = student.decoder(torch.tensor([[[3, 6, *row]]]), memory)[0, 0, -1]
    logits[[i for i in range(len(SPECIALS)) if i != END or not row]] = float("-inf")
    return logits


def test_greedy_takes_the_likeliest_piece_until_the_end(student: Student) -> None:
    visual = torch.randn(3, 8, 32)
    rows = roll_out(student, Seen.plain(visual), 1, sample=False)
    assert len(rows) == 3
    for index, row in enumerate(rows):
        for place, piece in enumerate(row):
            logits = logits_after(student, visual[index, None], row[:place])
            assert piece == int(logits.argmax())
        assert END not in row[:-1]
        assert row[-1] == END or len(row) == student.dimensions.max_tokens - 1


def test_photos_whose_captions_have_ended_are_left_behind(student: Student) -> None:
    """The others go on as if they were alone."""
    visual = torch.randn(12, 8, 32)
    rows = roll_out(student, Seen.plain(visual), 2, sample=False)
    assert len({len(row) for row in rows}) > 2
    for index in range(12):
        alone = roll_out(student, Seen.plain(visual[index, None]), 2, sample=False)
        assert rows[2 * index : 2 * index + 2] == alone


@pytest.mark.parametrize("sample", [False, True])
def test_rows_stand_by_photo_and_hold_text_only(student: Student, sample: bool) -> None:
    rows = roll_out(student, Seen.plain(torch.randn(2, 8, 32)), 4, sample)
    assert len(rows) == 8
    for row in rows:
        assert 1 <= len(row) <= student.dimensions.max_tokens - 1
        assert not set(row) & (set(range(len(SPECIALS))) - {END})
    if not sample:
        assert rows[:4] == [rows[0]] * 4
        assert rows[4:] == [rows[4]] * 4


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_samples_follow_the_distribution(student: Student, temperature: float) -> None:
    visual = torch.randn(1, 8, 32)
    count = 4000
    rows = roll_out(student, Seen.plain(visual), count, True, temperature)
    probabilities = (logits_after(student, visual, []) / temperature).softmax(0)
    first = Counter(row[0] for row in rows)
    for piece, probability in enumerate(probabilities.tolist()):
        expected = count * probability
        spread = (count * probability * (1 - probability)) ** 0.5
        assert abs(first[piece] - expected) <= 5 * spread + 1e-6
    favourite = first.most_common(1)[0][0]
    second = Counter(row[1] for row in rows if row[0] == favourite)
    likeliest = (logits_after(student, visual, [favourite]) / temperature).softmax(0)
    assert second.total() > 100
    piece = second.most_common(1)[0][0]
    share = float(likeliest[piece])
    spread = (share * (1 - share) / second.total()) ** 0.5
    assert abs(second[piece] / second.total() - share) <= 5 * spread


def test_sampling_is_the_same_after_the_same_seed(student: Student) -> None:
    visual = torch.randn(2, 8, 32)
    drawn = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        drawn.append(roll_out(student, Seen.plain(visual), 3, sample=True))
    assert drawn[0] == drawn[1] != drawn[2]


def test_texts_of_rows(corpus: Corpus) -> None:
    text = "a red circle on a blue background"
    ids = corpus.tokenizer.encode(text).ids
    assert to_texts(corpus.tokenizer, [[*ids, END], ids, [END]]) == [text, text, ""]
    assert to_texts(corpus.tokenizer, []) == []
