"""Scores of facts: numbers worked out by hand, and what must hold for any captions."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocap.errors import MissingExtraError, NanocapError
from nanocap.measure.metrics.facts import KINDS, FactCounts, PhotoCounts, fact_counts, words

SENTENCES = st.sampled_from(
    [
        "A small brown dog runs through the grass.",
        "A man in a red shirt is riding a horse on the beach.",
        "The person sits near two animals.",
        "A boy and his father eat pizza at a wooden table.",
        "Somebody wears maroon clothing.",
        "A woman holds an umbrella.",
        "Nothing of the kind.",
        "",
    ]
)


def test_worked_by_hand() -> None:
    counts = fact_counts(
        "A man rides a brown horse near a tree.",
        ["A man rides a horse.", "A person on a brown horse.", "A black horse and a dog."],
    )
    # man, horse, tree: nobody saw a tree. Wanted: horse 3/3, person 2/3 (the man is one), man 1/3,
    # dog 1/3; only the dog is not named.
    assert counts.objects.mentioned == 3
    assert counts.objects.supported == 2
    assert counts.objects.wanted == pytest.approx(7 / 3)
    assert counts.objects.covered == pytest.approx(6 / 3)
    # brown is seen by one; black by another
    assert counts.attributes == FactCounts(1, 1, 1 / 3, 2 / 3)
    # ride and near; ride and on are wanted
    assert counts.relations == FactCounts(1, 2, 1 / 3, 2 / 3)
    rates = counts.objects.rates()
    assert rates.hallucination == pytest.approx(1 / 3)
    assert rates.recall == pytest.approx(6 / 7)
    assert rates.f1 == pytest.approx(2 * (2 / 3) * (6 / 7) / (2 / 3 + 6 / 7))


@pytest.mark.parametrize(
    ("caption", "reference", "supported"),
    [
        ("a person", "a man", 1),
        ("a man", "a person", 0),
        ("a woman", "a man", 0),
        ("a child", "a girl", 1),
        ("a dog", "a terrier", 1),
        ("an animal", "a poodle", 1),
        ("clothing", "a t-shirt", 1),
        ("fruit", "bananas", 1),
        ("a vehicle", "a fire truck", 1),
        ("a bus", "a train", 0),
        ("tennis", "a tennis player", 1),
    ],
)
def test_who_says_the_special_has_said_the_general(
    caption: str, reference: str, supported: int
) -> None:
    assert fact_counts(caption, [reference]).objects.supported == supported


PLANTED = "A small brown dog chases a ball on the beach."
SEEN = (
    "A small brown dog in a red shirt chases a ball on the beach.",
    "A dog runs after a ball near the water.",
)


def planted(caption: str) -> dict[str, tuple[float, float]]:
    """Precision and recall by kind."""
    counts = fact_counts(caption, SEEN)
    rates = {kind: getattr(counts, kind).rates() for kind in KINDS}
    return {kind: (rate.precision, rate.recall) for kind, rate in rates.items()}


@pytest.mark.parametrize(
    ("caption", "fewer"),
    [
        ("A brown dog chases a ball on the beach.", {"attributes"}),
        ("A small brown dog chases a ball.", {"objects", "relations"}),
        ("A dog.", {"objects", "attributes", "relations"}),
    ],
)
def test_a_fact_left_out_lowers_recall_only(caption: str, fewer: set[str]) -> None:
    before, after = planted(PLANTED), planted(caption)
    for kind in KINDS:
        assert after[kind][0] == before[kind][0] == 1
        assert (after[kind][1] < before[kind][1]) == (kind in fewer)


@pytest.mark.parametrize(
    ("caption", "wrong"),
    [
        ("A small brown green dog chases a ball on the beach.", {"attributes"}),
        ("A small brown dog chases a ball on the beach under a kite.", {"objects", "relations"}),
        ("A small brown dog and a zebra chase a ball on the beach.", {"objects", "relations"}),
    ],
)
def test_a_false_fact_lowers_precision_only(caption: str, wrong: set[str]) -> None:
    before, after = planted(PLANTED), planted(caption)
    for kind in KINDS:
        assert after[kind][1] == before[kind][1]
        assert (after[kind][0] < before[kind][0]) == (kind in wrong)


@pytest.mark.parametrize(
    "caption",
    [
        "A small brown puppy chases a ball on the shore.",
        "A little brown dog is chasing a ball on the beach.",
        "a SMALL, brown dog chases a ball on the seashore",
    ],
)
def test_a_synonym_changes_nothing(caption: str) -> None:
    assert planted(caption) == planted(PLANTED)


def test_kinds_hold_inside_pairs_and_triples() -> None:
    counts = fact_counts("A red animal near a person.", ["A maroon bird near a woman."])
    assert counts.attributes.supported == counts.attributes.mentioned == 1
    assert counts.relations.supported == counts.relations.mentioned == 1
    assert counts.relations.covered == 0


@given(SENTENCES)
def test_the_only_reference_itself_is_perfect(text: str) -> None:
    counts = fact_counts(text, [text])
    for kind in KINDS:
        rates = getattr(counts, kind).rates()
        assert (rates.precision, rates.recall, rates.f1) == (1, 1, 1)
    assert counts.objects.rates().hallucination == 0


@given(SENTENCES, st.lists(SENTENCES, min_size=1, max_size=4), SENTENCES)
def test_another_reference_never_lowers_precision(
    caption: str, references: list[str], another: str
) -> None:
    before, after = (fact_counts(caption, r) for r in (references, [*references, another]))
    for kind in KINDS:
        assert getattr(after, kind).supported >= getattr(before, kind).supported
        assert getattr(after, kind).mentioned == getattr(before, kind).mentioned


@given(SENTENCES, st.lists(SENTENCES, min_size=1, max_size=5))
def test_the_order_of_references_does_not_matter(caption: str, references: list[str]) -> None:
    assert fact_counts(caption, references) == fact_counts(caption, references[::-1])


@given(st.text(max_size=80), st.lists(st.text(max_size=80), min_size=1, max_size=3))
def test_rates_are_shares_for_any_text(caption: str, references: list[str]) -> None:
    counts = fact_counts(caption, references)
    for kind in KINDS:
        rates = getattr(counts, kind).rates()
        assert min(rates.precision, rates.recall, rates.f1) >= 0
        assert max(rates.precision, rates.recall, rates.f1) <= 1


def test_sums_over_photos_weigh_facts_not_photos() -> None:
    one = fact_counts("a dog", ["a dog"])
    other = fact_counts("a cat, a bird and a fish", ["a cow"])
    total = sum([one, other], PhotoCounts())
    assert total.objects.rates().precision == pytest.approx(1 / 4)
    assert total == one + other == other + one


def test_a_caption_without_facts_hallucinates_nothing_and_covers_nothing() -> None:
    rates = fact_counts("", ["a dog on a sofa"]).objects.rates()
    assert (rates.hallucination, rates.recall, rates.f1) == (0, 0, 0)


def test_no_references() -> None:
    with pytest.raises(NanocapError) as caught:
        fact_counts("a dog", [])
    assert str(caught.value) == "facts: a photo has no reference captions to compare with"


def test_no_lemmas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplemma", None)
    words.word.cache_clear()
    words._singulars.cache_clear()
    words._bases.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'nanocap\[eval\]'$"):
        fact_counts("a dog", ["a cat"])
