"""Images of reStructuredText without `:alt:`."""

from __future__ import annotations

import pytest
from docutils.core import publish_doctree
from docutils.nodes import image

from nanocap.runtime.alt.restructuredtext import find

WORDS = "A cat: *on* a `bed` \\ with :notes:."


def filled(text: str) -> str:
    pieces, place = [], 0
    for picture in find(text):
        pieces += [text[place : picture.place], picture.form(WORDS)]
        place = picture.place
    return "".join([*pieces, text[place:]])


@pytest.mark.parametrize(
    "text",
    [
        ".. image:: a.jpg",
        ".. image:: a.jpg\n",
        ".. image:: a.jpg\r\n   :width: 3\r\n\r\nText\r\n",
        ".. figure:: a.jpg\n    :align: left\n\n    A caption.\n",
        "Text\n\n.. |x| image:: a.jpg\n\n|x|\n",
        "* item\n\n  .. image:: a.jpg\n",
        "Look:\n\n.. note::\n\n   .. image:: a.jpg\n\nEnd\n",
    ],
)
def test_one_is_missing(text: str) -> None:
    (picture,) = find(text)
    assert picture.name == "a.jpg"
    after = filled(text)
    assert find(after) == []
    before, now = (
        publish_doctree(t, settings_overrides={"report_level": 3}) for t in (text, after)
    )
    assert {node.get("alt") for node in now.findall(image)} == {WORDS}
    assert {node["uri"] for node in now.findall(image)} == {"a.jpg"}
    for node in (*before.findall(image), *now.findall(image)):
        node.attributes.pop("alt", None)
    assert now.pformat() == before.pformat()
    if "\r\n" in text:
        assert after.count("\n") == after.count("\r\n")


@pytest.mark.parametrize(
    "text",
    [
        ".. image:: a.jpg\n   :alt: cat\n",
        ".. image:: a.jpg\n   :width: 3\n   :alt:\n",
        "Code::\n\n   .. image:: a.jpg\n\n",
        ".. code-block:: rst\n\n   .. image:: a.jpg\n",
        ".. literalinclude:: a.jpg\n",
        "",
    ],
)
def test_none_is_missing(text: str) -> None:
    assert find(text) == []


def test_behind_code_images_are_found_again() -> None:
    text = "Code::\n\n   .. image:: b.jpg\n\nText\n\n.. image:: a.jpg\n"
    assert [(picture.name, picture.line) for picture in find(text)] == [("a.jpg", 7)]
