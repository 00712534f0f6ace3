"""Words to avoid and words to require: obeyed always, and nothing else changes."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nanocap import Caption, Captioner
from nanocap.errors import OptionError

from ..conftest import ENDINGS, WORDS

PHRASES = st.sampled_from([*WORDS, "dogs", "trees", "the red", "sits on the", "biges", "a cat on"])


def words(caption: Caption) -> str:
    return f" {caption.text.rstrip('.').lower()} "


@given(
    avoid=st.lists(PHRASES, max_size=4),
    require=st.lists(PHRASES, max_size=3),
    beams=st.integers(1, 5),
    seed=st.integers(0, 11),
)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_captions_obey(
    captioner: Captioner,
    photos: list[Image.Image],
    avoid: list[str],
    require: list[str],
    beams: int,
    seed: int,
) -> None:
    try:
        caption = captioner(photos[seed], beams=beams, n_best=beams, avoid=avoid, require=require)
    except OptionError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert re.search("both avoided and required|too many words|ask for less", refused)
        assert len([*avoid, *require]) > 1
        return
    for one in (caption, *caption.alternatives):
        assert all(f" {phrase} " not in words(one) for phrase in avoid)
        assert all(f" {phrase} " in words(one) for phrase in require)
        assert 0 < one.confidence < 1


def test_what_is_not_asked_for_changes_nothing(
    captioner: Captioner, photos: list[Image.Image]
) -> None:
    plain = captioner(photos[:4])
    assert captioner(photos[:4], avoid=["nobody", "says this"]) == plain
    for photo, caption in zip(photos, plain, strict=False):
        said = words(caption).split()
        other = captioner(photo, avoid=[said[1]])
        assert f" {said[1]} " not in words(other)


def test_case_and_spaces_do_not_matter(captioner: Captioner, photos: list[Image.Image]) -> None:
    assert " the red " in words(captioner(photos[0], require=["  The   RED "]))


def test_a_word_is_whole(captioner: Captioner, photos: list[Image.Image]) -> None:
    for photo in photos[:6]:
        said = words(captioner(photo, require=["cat"])).split()
        assert "cat" in said
        said = words(captioner(photo, require=["cats"])).split()
        assert "cats" in said
    assert ENDINGS[0] == "s"


def test_many_photos_as_each_alone(captioner: Captioner, photos: list[Image.Image]) -> None:
    wanted = {"avoid": ["dog"], "require": ["house"]}
    together = captioner(photos[:5], batch_size=5, **wanted)
    assert [one.text for one in together] == [captioner(p, **wanted).text for p in photos[:5]]


def test_streams_obey(captioner: Captioner, photos: list[Image.Image]) -> None:
    for photo in photos[:5]:
        said = "".join(captioner.stream(photo, avoid=["a"], require=["tree"])).lower()
        assert "tree" in said.rstrip(".").split()
        assert "a" not in said.split()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"avoid": "dog"}, "avoid must be a list of words, got 'dog'"),
        ({"require": [""]}, "require: '' is no word"),
        ({"require": [7]}, "require: 7 is no word"),
        ({"avoid": ["x" * 101]}, "avoid: a word of 101 letters; 100 at most"),
        ({"avoid": ["dog"] * 65}, "avoid: at most 64 words, got 65"),
        ({"require": ["\u732b"]}, "require: '\u732b' has letters that this bundle cannot write"),
        ({"require": ["a cat"], "avoid": ["cat"]}, "'cat' cannot be both avoided and required"),
        ({"require": [*WORDS]}, "require: too many words for one caption"),
    ],
)
def test_what_cannot_be_obeyed(
    captioner: Captioner, photos: list[Image.Image], options: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        captioner(photos[0], **options)  # type: ignore[call-overload]
    assert str(caught.value) == message
