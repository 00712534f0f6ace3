"""The concept head and copying, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanocap.errors import NanocapError
from nanocap.student import Dimensions, Student
from nanocap.student.evidence import (
    CLASSES,
    TOP_CHANNELS,
    ConceptHead,
    Concepts,
    Seen,
    has_said,
    with_copies,
)

#: Words by their pieces: the first two are learned, of the last two ImageNet has classes.
CONCEPTS = Concepts(pieces=(11, 12, 13, 14), classes=((), (5,), (5, 6), (7, 8, 9)))


@pytest.fixture
def told(small: Dimensions) -> Dimensions:
    return replace(small, evidence=2, concepts=4, words=2)


@pytest.fixture
def head(told: Dimensions) -> ConceptHead:
    head = ConceptHead(told)
    head.define(CONCEPTS)
    return head


def logits_for(shares: dict[int, float]) -> torch.Tensor:
    """Logits [1, CLASSES] of these probabilities; the rest shares what is left."""
    rest = (1 - sum(shares.values())) / (CLASSES - len(shares))
    return torch.tensor([[shares.get(number, rest) for number in range(CLASSES)]]).log()


def test_a_word_has_its_classes_together(head: ConceptHead) -> None:
    classes = logits_for({5: 0.2, 6: 0.1, 7: 0.3, 9: 0.2})
    found = head.probabilities(classes, torch.logit(torch.tensor([[0.6, 0.05]])))[0]
    rest = (1 - 0.8) / (CLASSES - 4)
    # class 5 counts for two words; what is learned counts where it is surer
    expected = [0.6, 0.2, 0.3, 0.5 + rest]
    np.testing.assert_allclose(found.tolist(), expected, atol=1e-5)


def test_the_likeliest_words_are_told(head: ConceptHead) -> None:
    classes, words = logits_for({5: 0.2, 6: 0.1, 7: 0.5}), torch.tensor([[2.0, -9.0]])
    concepts, certainty = head.likeliest(classes, words)
    assert head.pieces[concepts].tolist() == [[11, 14]]
    assert certainty.exp()[0].tolist() == pytest.approx([0.8808, 0.5004], abs=1e-3)


def test_a_classifier_keeps_its_answers_where_photos_are(head: ConceptHead) -> None:
    """Of features of few dimensions the factors are exact, whatever the rest of the matrix."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(CLASSES, TOP_CHANNELS, generator=random) / 30
    bias = torch.randn(CLASSES, generator=random)
    basis = torch.randn(100, TOP_CHANNELS, generator=random)
    photos = torch.randn(300, 100, generator=random) @ basis / 10
    head.load_imagenet(weight, bias, photos)
    expected = photos @ weight.T + bias
    torch.testing.assert_close(head.classes(head.down(photos)), expected, atol=2e-2, rtol=1e-2)


def test_two_ways_to_say_a_word_add_up() -> None:
    logits = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
    copies = torch.tensor([[[4.0, -1.0]]])
    evidence = torch.tensor([[1, 3]])
    said = torch.zeros(1, 1, 2, dtype=torch.bool)
    ways = with_copies(logits, copies, evidence, said).exp()[0, 0]
    expected = torch.tensor([0.0, 1.0, 2.0, 3.0]).exp()
    expected[1] += np.exp(4.0)
    expected[3] += np.exp(-1.0)
    torch.testing.assert_close(ways, expected, rtol=1e-5, atol=1e-5)


def test_a_word_is_copied_once() -> None:
    logits, copies = torch.randn(1, 2, 20), torch.full((1, 2, 3), 9.0)
    evidence = torch.tensor([[4, 7, 9]])
    said = has_said(torch.tensor([[[3, 7, 0], [0, 0, 0]]]), evidence)
    assert said.tolist() == [[[False, True, False], [False, False, False]]]
    found = with_copies(logits, copies, evidence, said)
    assert found[0, 0, 7] == logits[0, 0, 7]
    assert (found[0, 0, [4, 9]] > 8.9).all()
    assert (found[0, 1, [4, 7, 9]] > 8.9).all()


def test_a_word_never_seen_is_as_easy_to_copy_as_any() -> None:
    """However unlikely it is to be generated: that is what copying is for."""
    logits = torch.tensor([[[5.0, -1e4, 4.0]]])
    said = torch.zeros(1, 1, 1, dtype=torch.bool)
    found = with_copies(logits, torch.tensor([[[9.0]]]), torch.tensor([[1]]), said)
    assert found[0, 0, 1] == pytest.approx(9.0)


@given(st.lists(st.integers(9, 15), max_size=6), st.integers(9, 15))
def test_said_is_membership(ids: list[int], word: int) -> None:
    padded = torch.tensor([[[*ids, *[0] * (6 - len(ids))]]])
    assert has_said(padded, torch.tensor([[word]])).item() == (word in ids)


def test_what_is_told_changes_what_is_said(told: Dimensions) -> None:
    student = Student(told).eval()
    tokens = torch.tensor([[[3, 6, 20, 21]]])
    visual, none = torch.randn(1, told.visual_tokens, told.width), torch.zeros(1, 0)
    with torch.no_grad():
        first, second, unsure = (
            student.decoder(tokens, student.decoder.cross(Seen(visual, ids, sure, none, none)))
            for ids, sure in (
                (torch.tensor([[11, 12]]), torch.tensor([[-0.1, -1.0]])),
                (torch.tensor([[11, 14]]), torch.tensor([[-0.1, -1.0]])),
                (torch.tensor([[11, 12]]), torch.tensor([[-0.1, -6.0]])),
            )
        )
    assert not torch.equal(first, second)
    assert not torch.equal(first, unsure)


def test_a_checkpoint_keeps_its_words(told: Dimensions) -> None:
    student = Student(told)
    assert isinstance(student.encoder.concepts, ConceptHead)
    student.encoder.concepts.define(CONCEPTS)
    again = Student(Dimensions.from_dict(told.to_dict()))
    again.load_state_dict(student.state_dict())
    assert isinstance(again.encoder.concepts, ConceptHead)
    assert again.encoder.concepts.pieces.tolist() == list(CONCEPTS.pieces)


def test_a_student_without_a_head_has_nothing_of_it(small: Dimensions) -> None:
    assert not [name for name in Student(small).state_dict() if "concepts" in name]
    assert "evidence" not in small.to_dict()


def test_more_evidence_than_words(small: Dimensions) -> None:
    with pytest.raises(NanocapError, match=r"^evidence 5 and words 0 must not be above concepts 4"):
        replace(small, evidence=5, concepts=4)
