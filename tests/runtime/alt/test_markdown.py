"""Images of Markdown without a text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from nanocap.runtime.alt.markdown import Words, find


@pytest.mark.parametrize(
    "text",
    [
        "![](a.jpg)",
        "see ![ ](a.jpg 'title') here",
        "![](<a.jpg>)",
        "![][x]\n\n[x]: a.jpg",
        "![][ X  y ]\n\n[x Y]: <a.jpg> 'title'",
        "- item\n\n    ![](a.jpg)",
        "> ![](a.jpg)",
        "[![](a.jpg)](big.jpg)",
        '<img src="a.jpg">',
        "` one tick ![](a.jpg)",
        "\\`![](a.jpg)\\`",
        "---\ncover: ![](b.jpg)\n---\n![](a.jpg)",
        "```\n![](b.jpg)\n```\n![](a.jpg)",
        "~~~\n```\n~~~\n![](a.jpg)",
        "<img src='a.jpg'/>\n\n`<img src='b.jpg'/>`",
    ],
)
def test_one_is_missing(text: str) -> None:
    (picture,) = find(text)
    assert (picture.name, picture.reason) == ("a.jpg", "")


@pytest.mark.parametrize(
    "text",
    [
        "![cat](a.jpg)",
        "![cat][x]\n\n[x]: a.jpg",
        "![][nobody]",
        "`![](a.jpg)`",
        "``a ` ![](a.jpg)``",
        "```\n![](a.jpg)\n```",
        "````\n```\n![](a.jpg)\n````",
        "~~~ x\n![](a.jpg)",
        "text\n\n    ![](a.jpg)\n",
        "\t![](a.jpg)",
        "\\![](a.jpg)",
        "<img src=a.jpg alt=''>",
        "[]( a.jpg)",
    ],
)
def test_none_is_missing(text: str) -> None:
    assert find(text) == []


def test_words_are_no_markup() -> None:
    words = "A [cat] *and* a `dog` <b> & _x_ \\."
    text = f"![{Words()(words)}](a.jpg)"
    (image,) = (
        child
        for token in MarkdownIt().parse(text)
        for child in token.children or ()
        if child.type == "image"
    )
    assert image.attrs["src"] == "a.jpg"
    said = "".join(child.content for child in image.children or ())
    assert said == words
    assert find(text) == []


PIECES = [
    "![](a.jpg)",
    "![x](b.jpg)",
    "`",
    "``",
    "\n",
    "\n\n",
    "text",
    "    ",
    "```",
    "~~~",
    "> ",
    "- ",
]
PIECES += ["\\", "![][r]", "[r]: c.jpg", "*", "!", "[", "]", "(", ")", " ", "1. ", "\t", "# "]


@given(text=st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
@settings(max_examples=300, deadline=None)
def test_what_is_found_is_an_image(text: str) -> None:
    """Whatever is found, a parser sees as an image without a text; and words go into that one."""
    before = empty_images(text)
    found = find(text)
    for number, picture in enumerate(found):
        after = text[: picture.place] + picture.form("words") + text[picture.place :]
        if len(found) == len(before):
            assert empty_images(after) == before[:number] + before[number + 1 :]


def empty_images(text: str) -> list[str]:
    def walk(tokens: list[object]) -> list[str]:
        found = []
        for token in tokens:
            if token.type == "image" and not token.content.strip():
                found.append(str(token.attrs["src"]))
            found += walk(token.children or [])
        return found

    return walk(MarkdownIt().parse(text))
