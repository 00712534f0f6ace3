"""The stages of labelling, each by what it means for captions."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer

from nanocap.distill.data.corpus import Corpus
from nanocap.distill.labelling.decision import (
    FUSED,
    MOST_WORDS,
    ORIGINAL,
    TOO_LONG,
    Candidate,
    Decision,
    Sight,
    whole_sentences,
)
from nanocap.distill.labelling.evidence import STRANGERS, Detector, LineUp
from nanocap.distill.labelling.fusion import Named, fuse, name
from nanocap.distill.labelling.proposals import SAID, agree
from nanocap.distill.labelling.quality import grade, level, rank, repeated, verify
from nanocap.distill.labelling.text_support import Backing, prune, with_article
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.teachers.similarity import ImageTextScorer
from nanocap.errors import DataError, OptionError
from nanocap.measure.metrics.facts import extract
from nanocap.scorer import Scorer, ScorerDimensions


def proposed(*texts: str, teacher: str = "t", originals: tuple[str, ...] = ()) -> Decision:
    """What one teacher proposes, its favourite first."""
    candidates = [Candidate(text, teacher=teacher, score=-float(n)) for n, text in enumerate(texts)]
    return Decision("photo", originals, tuple(candidates))


def fused(original: str, *texts: str) -> list[Candidate]:
    """The candidates that fusion adds."""
    decision = fuse(agree(proposed(*texts, originals=(original,))))
    return [one for one in decision.candidates if one.origin in (FUSED, ORIGINAL)]


DOGS = ("a dog runs on the grass", "a brown dog in a park", "a dog on a field")


def test_what_agrees_with_the_others_stands_out() -> None:
    decision = agree(proposed("a dog runs", "a dog runs fast", "a red bus"))
    near, nearer, alone = (one.agreement for one in decision.candidates)
    assert near is not None
    assert nearer is not None
    assert min(near, nearer) > 3
    assert alone is not None
    assert alone < 1
    assert agree(proposed("a dog")).candidates[0].agreement is None  # nobody to agree with


def test_equal_words_are_one_caption_but_two_voices() -> None:
    one, two = proposed("A dog runs."), proposed("a dog runs", teacher="u")
    decision = verify(agree(replace(one, candidates=one.candidates + two.candidates)))
    assert [c.text for c in decision.kept] == ["A dog runs."]
    assert decision.candidates[1].dropped == SAID
    assert decision.kept[0].support == 1.0


def test_fusion_keeps_the_name_that_the_proposals_support() -> None:
    named, pruned = fused("My golden retriever Max at the park in Texas, 2020.", *DOGS)
    assert named.text == "a golden retriever on a field"
    assert named.notes == ("dog -> golden retriever",)
    assert pruned.text == "My golden retriever at the park"
    assert "max" in pruned.notes[0]
    assert "texas" in pruned.notes[0]


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        ("A picture of a dog with a red ball in a park.", "A dog in a park"),
        (
            "a dog in a park with a man holding a dog",
            "a dog in a park",
        ),  # who holds it went as well
        ("a dog runs past a man", None),  # "a dog runs" is too little
        ("a dog with a pillow near the dog on a field", None),  # which dog?
        ("a dog and a cat on the grass", "a dog on the grass"),
        ("a dog takes a payment from a park", None),  # "a dog" is too little
        ("a dog in a black hat and a scarf on the grass", "a dog on the grass"),
        ("a dog in a park with a cat who runs on a field", "a dog in a park"),
        ("a big brown dog runs in a park", "a brown dog runs in a park"),
        ("an old dog in a park", "a dog in a park"),
        ("the neighbour's dog on a field", None),  # whose it is cannot be told apart from it
        ("a cat sleeps on the grass", None),
        ("Buick Century coupe, 2020", None),
        ("", None),
    ],
)
def test_what_nothing_supports_goes(original: str, expected: str | None) -> None:
    backing = Backing.of(agree(proposed(*DOGS)))
    assert (prune(original, backing).text or None) == expected


def test_a_text_that_is_supported_stays_as_it_is() -> None:
    *_, own = fused("A brown dog runs, in a park!", *DOGS)
    assert (own.text, own.origin) == ("A brown dog runs, in a park!", ORIGINAL)


def test_a_person_backs_a_role_but_not_what_one_would_see() -> None:
    backing = Backing.of(proposed("a man in a white coat"))
    assert backing.object("doctor")
    assert not backing.object("woman")
    assert not backing.object("crowd")


def test_what_the_detector_misses_is_not_taken_over() -> None:
    decision = replace(proposed(*DOGS), sight=Sight(frozenset({"dog"}), frozenset({"frisbee"})))
    backing = Backing.of(decision)
    assert not backing.object("frisbee")
    assert backing.object("dog")


WORDS = "a the dog cat man red brown old in on with of and , . is runs holding park 's no xyzzy who"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS.split()), max_size=25).map(" ".join))
def test_whatever_is_left_of_a_text_is_supported(text: str) -> None:
    backing = Backing.of(proposed(*DOGS))
    left = prune(text, backing)
    facts = extract(left.text)
    assert all(backing.object(name) for name in facts.objects)
    assert "xyzzy" not in left.text
    words = text.split()
    assert all(word.lower() in (*words, "a", "an") for word in left.text.replace(",", " ").split())


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from(string.printable + "éİß’你\u0301"), max_size=80))
def test_any_original_can_be_fused(text: str) -> None:
    decision = rank(verify(agree(fuse(agree(proposed(*DOGS, originals=(text,)))))))
    assert {one.text for one in decision.candidates} >= set(DOGS)


def test_articles_follow_the_words_behind_them() -> None:
    assert with_article("a old dog and an brown cat") == "an old dog and a brown cat"
    assert with_article("a union, a 2 ton bus, Abba") == "a union, a 2 ton bus, Abba"


def test_long_texts_are_cut_to_whole_sentences_or_refused() -> None:
    assert whole_sentences("A dog.\n It\truns. " + "so " * 10_000) == "A dog. It runs."
    assert whole_sentences("so " * 10_000) == ""
    assert whole_sentences("so " * MOST_WORDS) == "so " * (MOST_WORDS - 1) + "so"
    assert whole_sentences("x" * 1_000_000) == ""
    assert whole_sentences("half \ud83d of it") == "half ? of it"
    (own,) = fused("so " * 10_000, *DOGS)
    assert (own.dropped, len(own.text) < 100) == (TOO_LONG, True)


def test_support_is_the_share_of_others_who_say_so() -> None:
    decision = verify(proposed("a dog", "a dog", "a dog", "a cat", "yes"))
    support = [one.support for one in decision.candidates]
    # equal words are taken for the same caption here: agree() drops them before
    assert support[3] == 0.0
    assert support[4] == 0.0  # states nothing
    assert verify(proposed("a dog")).kept[0].support is None  # nobody to ask


def test_who_depends_on_nobody_must_confirm_something() -> None:
    """One teacher's beams agree with each other whatever it sees."""
    texts = ("scissors on a table", "scissors on a wooden table")
    assert verify(proposed(*texts)).candidates[0].confirmed is None
    contested = verify(proposed(*texts, originals=("a toy truck",)))
    assert [one.confirmed for one in contested.kept] == [False, False]
    assert [level(one) for one in contested.kept] == ["low", "low"]
    assert verify(proposed(*texts, originals=("a small table",))).kept[0].confirmed
    assert verify(proposed(*texts, originals=("lovely!",))).kept[0].confirmed is None
    two = proposed(*texts).candidates + proposed("a table", teacher="u").candidates
    assert all(one.confirmed for one in verify(Decision("photo", candidates=two)).kept)


def test_who_repeats_himself_is_not_listened_to() -> None:
    decision = verify(proposed("a room with a bed and a bed", "a man and another man", "a bed"))
    assert [one.dropped for one in decision.candidates] == ["says bed twice", "", ""]
    assert repeated("a large tree with a large tree behind it") == "large tree"
    assert repeated("a dog runs after a big dog; the dog is brown, the dog is big") == ""


def test_groups_and_heaps_are_no_exacter_names() -> None:
    backing = Backing.of(proposed("a person with lots of furniture"))
    assert name("a person with lots of furniture", ["A family sits on a couch"], backing) is None
    assert name("a person sits", ["a woman"], backing) == Named(
        "a woman sits", ("person -> woman",)
    )


def test_teachers_weigh_alike_however_much_they_say() -> None:
    many = proposed("a dog", "a dog runs", "a dog jumps", "a dog sits")
    one = proposed("a cat", teacher="u")
    decision = verify(replace(many, candidates=many.candidates + one.candidates))
    assert decision.candidates[0].support == pytest.approx(0.5)


def test_the_photos_own_text_confirms_a_teacher() -> None:
    texts = ("a dog", "a cat")
    alone, backed = proposed(*texts), proposed(*texts, originals=("My cat Tom",))
    assert verify(alone).candidates[1].support == 0.0
    assert verify(backed).candidates[1].support == 1.0


def test_the_detector_confirms_and_contradicts() -> None:
    sight = Sight(seen=frozenset({"cat", "person"}), absent=frozenset({"dog"}))
    decision = verify(replace(proposed("a puppy", "a cat", "a woman"), sight=sight))
    puppy, cat, woman = decision.candidates
    assert puppy.dropped == "the detector sees no dog, and 0% of the others name it"
    assert (cat.support, woman.support) == (1.0, 1.0)
    # but not against the others: a detector misses things
    three = verify(replace(proposed("a dog runs", "a dog sits", "a dog"), sight=sight))
    assert len(three.kept) == 3


def test_ranking_needs_no_common_scale() -> None:
    good = Candidate("good", teacher="t", score=-1.0, agreement=3.0, match=0.2)
    poor = Candidate("poor", teacher="t", score=-2.0, agreement=0.1, match=0.1)
    other = Candidate("other", teacher="u", score=-100.0, agreement=2.0, match=0.15)
    decision = rank(Decision("photo", candidates=(poor, other, good)))
    assert [one.text for one in decision.candidates] == ["good", "other", "poor"]
    assert decision.candidates[0].rank == 1.0
    assert decision.candidates[1].rank == 0.5  # its score is not held against that of t
    same = [Candidate(text) for text in "abc"]
    assert rank(Decision("photo", candidates=tuple(same))).candidates[0].text == "a"


@pytest.mark.parametrize(
    ("support", "line_up", "expected"),
    [
        (1.0, None, "high"),
        (0.5, None, "medium"),
        (0.0, None, "low"),
        (None, None, "medium"),
        (None, 1.0, "medium"),
        (1.0, 0.95, "high"),
        (1.0, 0.6, "medium"),
        (1.0, 0.1, "low"),
    ],
)
def test_levels(support: float | None, line_up: float | None, expected: str) -> None:
    assert level(Candidate("a dog", support=support, line_up=line_up)) == expected


def test_a_row_keeps_captions_of_one_level_in_their_order() -> None:
    candidates = [Candidate(f"{n}", support=n / 10) for n in (9, 5, 8, 10, 0)]
    decision = grade(Decision("photo", candidates=tuple(candidates)), most=2)
    assert (decision.level, [one.text for one in decision.kept]) == ("high", ["9", "8"])
    reasons = {one.text: one.dropped for one in decision.candidates}
    assert reasons["5"] == "below high, the level of the best"
    assert reasons["10"] == "2 are better"
    assert decision.to_row()["captions"] == ["9", "8"]
    for supports, level_of_row, kept in (
        ((5, 9), "medium", 2),
        ((0, 9), "high", 1),
        ((0, 1), "low", 2),
    ):
        candidates = [Candidate(f"{n}", support=n / 10) for n in supports]
        decision = grade(Decision("photo", candidates=tuple(candidates)), most=5)
        assert (decision.level, len(decision.kept)) == (level_of_row, kept)
    nothing = Decision("photo", candidates=(Candidate("x", dropped="so"),))
    assert grade(nothing, 1).left_out


# A detector whose first label is blue and whose second is red: the brightest pixel decides.
YOLO = """
<ir_version: 9, opset_import: ["" : 18]>
detector (float[1, 3, 8, 8] images) => (float[1, 1, 7] output)
{
    axes = Constant <value_ints = [2, 3]> ()
    brightest = ReduceMax <keepdims = 0> (images, axes)
    white = Constant <value_float = 255.0> ()
    shares = Div (brightest, white)
    ends = Constant <value_ints = [0, 2]> ()
    labels = Gather <axis = 1> (shares, ends)
    box = Constant <value_floats = [0.0, 0.0, 0.0, 0.0, 1.0]> ()
    front = Constant <value_ints = [0]> ()
    row = Unsqueeze (box, front)
    flat = Concat <axis = 1> (row, labels)
    output = Unsqueeze (flat, front)
}
"""


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(YOLO), tmp_path / "detector.onnx")
    (tmp_path / "labels.txt").write_text("dog\ncat\n", encoding="utf-8")
    return tmp_path / "detector.onnx"


def test_the_detector_reads_bgr_and_pads(detector: Path) -> None:
    look = Detector(detector, detector.with_name("labels.txt")).look
    red, wide, grey = look(
        [
            Image.new("RGB", (20, 20), (255, 0, 0)),
            Image.new("RGB", (40, 10), (255, 0, 0)),
            Image.new("RGB", (9, 9), (90, 90, 90)),
        ]
    )
    assert red == Sight(frozenset({"cat"}), frozenset({"dog"}))
    assert wide == Sight(frozenset({"cat"}), frozenset())  # the grey beside it is suspicious
    assert grey == Sight()


def test_labels_that_mean_less_than_their_word_deny_nothing(detector: Path) -> None:
    labels = detector.with_name("labels.txt")
    labels.write_text("potted plant\nmouse\n", encoding="utf-8")
    (black,) = Detector(detector, labels).look([Image.new("RGB", (9, 9))])
    assert black == Sight()


def test_detectors_that_are_none(detector: Path, tmp_path: Path) -> None:
    labels = detector.with_name("labels.txt")
    with pytest.raises(DataError, match=r"nowhere.onnx: detector cannot be loaded \(No such file"):
        Detector(tmp_path / "nowhere.onnx", labels)
    with pytest.raises(DataError, match=r"labels.txt: detector cannot be loaded"):
        Detector(labels, labels)
    labels.write_text("dog\n", encoding="utf-8")
    with pytest.raises(OptionError, match=r"1 labels, but .* gives 7 - 5"):
        Detector(detector, labels)


def test_a_scorer_compares_with_captions_of_other_scenes(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    dimensions = ScorerDimensions(student=recipe.dimensions(), width=32, embedding=16, matching=8)
    Scorer(dimensions).save(tmp_path / "s.safetensors", {"tokenizer": corpus.tokenizer.to_str()})
    line_up = LineUp.load(tmp_path / "s.safetensors")
    images = [corpus.photo(0), corpus.photo(1)]
    decisions = [proposed("a red circle", "a blue square"), proposed("a cat")]
    found = line_up.match(decisions, images)
    scorer = line_up.scorer
    assert isinstance(scorer, ImageTextScorer)
    assert isinstance(scorer.tokenizer, Tokenizer)
    for decision, image in zip(found, images, strict=True):
        for one in decision.kept:
            cosine = scorer.score([image], [one.text])[0, 0]
            strangers = scorer.score([image], STRANGERS)[0]
            assert one.match == pytest.approx(cosine, abs=1e-5)
            assert one.line_up == pytest.approx(np.mean(strangers < cosine), abs=0.021)
    assert len(STRANGERS) == len(set(STRANGERS)) == 50
    assert torch.is_grad_enabled()
