"""Scores against pycocoevalcap called directly, and the one line where they cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from nanocap.errors import MissingExtraError, NanocapError
from nanocap.measure.metrics import reference
from nanocap.measure.metrics.measures import Interval
from nanocap.measure.metrics.reference import MODELS, Missing, reference_measures, tokenize

CAPTIONS = {
    "a": "A dog runs through the grass.",
    "b": "Two children are playing on a beach.",
    "c": "A man, in a red hat, rides a bike!",
    "d": "A dog runs through the grass.",
}
REFERENCES = {
    "a": ["A brown dog runs through the grass .", "The dog is running in a field."],
    "b": ["Two kids play on the beach", "Children playing in the sand, near the sea."],
    "c": ["A man wearing a red hat rides a bicycle.", "Someone's riding a bike: fast..."],
    "d": ["A cat sleeps on a sofa.", "The cat is asleep.", "A cat; a sofa."],
}


Figures = dict[str, Interval]


def figures(captions: dict[str, str], references: dict[str, list[str]]) -> Figures:
    found = reference_measures(captions, references)
    return {one.key: one.interval() for one in found if not isinstance(one, Missing)}


@pytest.fixture(scope="module")
def found() -> Figures:
    return figures(CAPTIONS, REFERENCES)


def test_scores_are_those_of_pycocoevalcap(found: Figures) -> None:
    tokenizer = PTBTokenizer()
    ours = tokenizer.tokenize({key: [{"caption": text}] for key, text in CAPTIONS.items()})
    theirs = tokenizer.tokenize(
        {key: [{"caption": text} for text in texts] for key, texts in REFERENCES.items()}
    )
    bleu, _ = Bleu(4).compute_score(theirs, ours, verbose=0)
    wanted = {
        "cider": Cider().compute_score(theirs, ours)[0],
        "rouge_l": Rouge().compute_score(theirs, ours)[0],
        "meteor": Meteor().compute_score(theirs, ours)[0],
        **{f"bleu{n}": bleu[n - 1] for n in range(1, 5)},
    }
    for key, value in wanted.items():
        assert found[key].value == pytest.approx(100 * value, abs=1e-6), key
        assert found[key].low <= found[key].value + 1e-9
        assert found[key].value <= found[key].high + 1e-9


def test_the_scale_is_that_of_papers() -> None:
    """And the order of the keys does not matter."""
    references = {key: [texts[0]] for key, texts in reversed(REFERENCES.items())}
    found = figures({key: texts[0] for key, texts in REFERENCES.items()}, references)
    assert found["cider"].value == pytest.approx(1000)
    assert found["bleu4"].value == pytest.approx(100)
    assert found["rouge_l"].value == pytest.approx(100)
    assert found["meteor"].value == pytest.approx(100)


def test_spice_without_its_models_says_so_and_fetches_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reference, "MODELS", "not-there.jar")
    [row] = reference.spice({}, {})
    assert isinstance(row, Missing)
    assert (row.label, "put not-there.jar in" in row.reason) == ("SPICE", True)
    assert MODELS.endswith("-models.jar")


def test_a_java_that_fails_costs_its_own_row_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "java").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    [row] = reference.meteor({"a": ["a dog"]}, {"a": ["a dog"]})
    assert isinstance(row, Missing)
    assert row.reason.startswith("its Java program failed")


def test_tokens_are_lower_case_words_and_no_text_shifts_another() -> None:
    """The tokenizer is given a text a line: a break inside one must not make two of it."""
    captions = {"a": "one\r\ntwo\nthree\x85four", "b": "", "c": "last \u2028one", "d": " "}
    references = {"a": ["one\rtwo"], "b": ["", "b b"], "c": ["c\x0bc\x0cc"], "d": ["d", ""]}
    captions["e"], references["e"] = CAPTIONS["c"], REFERENCES["c"]
    ours, theirs = tokenize(captions, references)
    assert ours.pop("e") == ["a man in a red hat rides a bike"]
    assert theirs.pop("e")[1] == "someone 's riding a bike fast"
    assert ours == {"a": ["one two three four"], "b": [""], "c": ["last one"], "d": [""]}
    assert theirs == {"a": ["one two"], "b": ["", "b b"], "c": ["c c c"], "d": ["d", ""]}


def test_captions_without_words_score_nothing() -> None:
    found = figures({"a": "", "b": ""}, {"a": ["a dog runs"], "b": ["a cat sits"]})
    assert found["cider"].value == 0
    assert found["bleu4"].value == pytest.approx(0.0, abs=1e-3)
    assert found["meteor"].value == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        ({"a": "x", "b": "y"}, {"a": ["x"]}, "b: has a caption or references, but not both"),
        ({"a": "x"}, {"a": ["x"], "c": ["y"]}, "c: has a caption or references, but not both"),
        ({"a": "x"}, {"a": []}, "a: has no reference captions"),
        ({}, {}, "no photo has a caption to score"),
    ],
)
def test_keys_that_do_not_fit(
    captions: dict[str, str], references: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(NanocapError) as caught:
        reference_measures(captions, references)
    assert str(caught.value) == message


def test_no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NanocapError) as caught:
        reference_measures(CAPTIONS, REFERENCES)
    assert str(caught.value) == (
        "the PTB tokenizer needs Java: install it (apt-get install default-jre-headless)"
    )


def test_a_java_that_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NanocapError, match=r"^the PTB tokenizer gave 1 of 13 texts back"):
        reference_measures(CAPTIONS, REFERENCES)


def test_no_scorers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "pycocoevalcap"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nanocap\[eval\]'$"):
        reference_measures(CAPTIONS, REFERENCES)
