"""The lexicon is well formed, says what it must, and knows the words of captions."""

from __future__ import annotations

from importlib import resources

import pytest

from nanocap.measure.metrics.facts.entries import Entries, lexicon, parse

TABLES = ("objects", "attributes", "verbs", "prepositions")


def lines(name: str) -> list[str]:
    folder = resources.files("nanocap.measure.metrics.facts") / "lexicon"
    return (folder / f"{name}.txt").read_text("utf-8").splitlines()


@pytest.mark.parametrize("name", [*TABLES, "abstract"])
def test_files_are_sorted_lower_case_words(name: str) -> None:
    found = lines(name)
    names = [line.partition(":")[0].partition("<")[0].strip() for line in found]
    assert names == sorted(set(names))
    for line in found:
        assert set(line) <= set("abcdefghijklmnopqrstuvwxyz0123456789 ,:<"), line
        synonyms = [word.strip() for word in line.partition(":")[2].split(",")]
        assert synonyms == sorted(set(synonyms)), line


def test_no_abstract_word_is_an_object() -> None:
    known = lexicon()
    assert not known.abstract & known.objects.names.keys()
    assert {
        "front",
        "side",
        "group",
        "pair",
        "photo",
        "picture",
        "image",
        "view",
        "day",
        "way",
    } <= (known.abstract)


def test_it_is_large_enough() -> None:
    """Its size; the coverage was measured, see `nanocap.measure.metrics.facts.entries`."""
    known = lexicon()
    assert len(known.objects.kinds) >= 1200
    assert len(known.attributes.kinds) >= 150
    assert len(known.verbs.kinds) + len(known.prepositions.kinds) >= 200


@pytest.mark.parametrize("table", TABLES)
def test_kinds_lead_upwards_only(table: str) -> None:
    entries: Entries = getattr(lexicon(), table)
    for name, kinds in entries.kinds.items():
        for kind in kinds - {name}:
            assert name not in entries.kinds[kind], f"{name} and {kind} are kinds of each other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat: kitty\ndog: kitty", "kitty: in the sets of cat and of dog"),
        ("cat\ndog: cat", "cat: in the sets of cat and of dog"),
        ("cat < animal", "animal: a kind of cat, but it has no set of its own"),
    ],
)
def test_a_file_that_contradicts_itself(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        parse(text)
