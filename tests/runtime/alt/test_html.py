"""Images of web pages: which ones lack words, and that nothing but the words is changed."""

from __future__ import annotations

import re
import time
from pathlib import Path
from xml.etree.ElementTree import Element

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanocap.runtime.alt.document import Document
from nanocap.runtime.alt.html import NO_FILE, OF_BUTTON, OF_CODE, OF_LINK, find

WORDS = 'A "cat" & a <dog>.'
XHTML = "{http://www.w3.org/1999/xhtml}"


# Markup as people and programs write it, and worse.
PIECES = [
    *"""\
<!doctype html>~<html>~<body>~</body>~<p>~</p>~<br>~<div class=a>~</div>~<img>~<img/>~
<IMG SRC='a.jpg'>~<img src="a.jpg" />~<img src=a.jpg/>~<img alt="" src=a.png>~
<img alt src=b.png>~<img ALT='a cat' src=c.png>~<img/src=a.png>~
<img title="a > b" src=x.png>~<img data-alt=x src=a.gif>~<image src=a.png>~<img =alt>~
<img src="a.jpg" role="presentation">~<img aria-label='named' src=a.jpg>~<img a='b'c="d">~
<p aria-hidden="true">~<picture>~<source srcset='a.webp 2x, b.webp'>~</picture>~<figure>~
<figcaption>A cat</figcaption>~</figure>~<a href=x>~</a>~<a href=big.jpg>~
<!-- <img src=a.jpg> -->~<!-->~<!--->~<!-- --!>~<!--~-->~<!x>~<?php?>~<?xml?>~
<script>'<img>'</script>~<script><!--<script></script>--></script>~<script>~</script>~
<style>a{b:'<img>'}</style>~<title><img></title>~<textarea><img>~</textarea>~<svg>~<svg/>~
</svg>~<title>~</title>~<math>~<mi>~</mi>~</math>~<![CDATA[<img>]]>~<desc>~</desc>~
<foreignObject>~</foreignObject>~<xmp><img></xmp>~<iframe><img></iframe>~<noscript>~
</noscript>~<table>~<tr>~<td>~</table>~<b><i></b></i>~</~</>~</ >~<~>~&amp;~&lt;img&gt;~"~'~
=~/~text~<img src='a.jpg~<img src="~<imgx>~<img-a>~< img>~<ul><li>~<a>~<h1>~
<span role=img style='background:url(a.jpg)'>~</span>~<input type=image src=a.png>""".replace(
        "\n", ""
    ).split("~"),
    *("<img\nsrc=b.png\n>", " ", "\n", "\r\n", "\t", "caf\xe9", "\u5199\u771f", "\x0c"),
]

PAGES = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def addresses(page: str, **options: bool) -> list[str]:
    return [picture.name for picture in find(page, **options)]


def filled(page: str) -> str:
    """The page with words for all of its pictures."""
    pieces, place = [], 0
    for picture in find(page):
        pieces += [page[place : picture.place], picture.form(WORDS)]
        place = picture.place
    return "".join([*pieces, page[place:]])


@pytest.mark.parametrize(
    "page",
    [
        "<img src=a.jpg>",
        "<IMG SRC='a.jpg'/>",
        "<picture><source srcset='b.webp'><img src=a.jpg></picture>",
        "<img srcset='small.jpg 100w, a.jpg 900w, c.jpg 400w'>",
        "<img srcset='c.jpg, a.jpg 2x'>",
        "<img src='' data-src=a.jpg>",
        "<figure><img src=a.jpg><figcaption>Tom</figcaption></figure>",
        "<a href=x>Tom <img src=a.jpg></a>",
        "<a href=x><img alt=Tom src=b.jpg><img src=a.jpg></a>",
        "<a href=big.jpg?x=1><img src=a.jpg></a>",
        "<svg></svg><img src=a.jpg>",
        "<svg><style></svg><img src=a.jpg>",
        "<div role=img style=\"background: #fff url('a.jpg')\"></div>",
        "<a name=top><img src=a.jpg></a>",
        "<title></title><img src=a.jpg>",
        "<p aria-hidden=true></p><img src=a.jpg>",
        "<img title='{{ title }}' src=a.jpg>",
    ],
)
def test_words_are_missing(page: str) -> None:
    (picture,) = find(page)
    assert (picture.name, picture.reason) == ("a.jpg", "")


@pytest.mark.parametrize(
    "page",
    [
        "<img src=a.jpg alt=''>",
        "<img src=a.jpg alt>",
        "<img src=a.jpg ALT=cat>",
        "<img src=a.jpg role=presentation>",
        "<img src=a.jpg role=none>",
        "<img src=a.jpg aria-hidden=true>",
        "<img src=a.jpg aria-label=cat>",
        "<img src=a.jpg aria-labelledby=cat>",
        "<div aria-hidden=true><p><img src=a.jpg></p></div>",
        "<div role=img aria-label=cat></div>",
        "<!-- <img src=a.jpg> -->",
        "<script>'<img src=a.jpg>'</script>",
        "<script><!-- <script></script> <img> --></script>",
        "<style><img></style><textarea><img></textarea><title><img></title>",
        "<svg><![CDATA[<img>]]></svg>",
        "<img src=a.jpg {{ 'alt=' + x }}>",
        "{# <img src=a.jpg> #}<% print('<img>') %><?php echo '<img>' ?>{{ '<img>' }}",
        "<p title='<img>'></p>",
        "<img src='a.jpg",
        "<imgs src=a.jpg>",
        "<plaintext><img src=a.jpg>",
    ],
)
def test_nothing_is_missing(page: str) -> None:
    assert find(page) == []


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("<a href=/home><img src=logo.png></a>", OF_LINK),
        ("<a href=/home> <b><img src=logo.png></b> </a>", OF_LINK),
        ("<input type=image src=go.png>", OF_BUTTON),
        ("<span role=img></span>", NO_FILE),
        ("<img src=a.jpg {{ more }}>", OF_CODE),
        ("<img src=a.jpg {% if x %}class=b{% endif %}>", OF_CODE),
    ],
)
def test_what_only_a_person_knows(page: str, reason: str) -> None:
    (picture,) = find(page)
    assert picture.reason == reason


def test_words_go_behind_the_name() -> None:
    page = "<p>\r\n<IMG SRC='a.jpg'\r\n/><img src=b.jpg alt=b><img/src=c.jpg>"
    words = "A &quot;cat&quot; &amp; a &lt;dog&gt;."
    assert filled(page) == (
        f"<p>\r\n<IMG alt=\"{words}\" SRC='a.jpg'\r\n/><img src=b.jpg alt=b>"
        f'<img alt="{words}"/src=c.jpg>'
    )
    assert [picture.line for picture in find(page)] == [2, 3]


def test_xhtml_has_no_raw_text() -> None:
    assert addresses("<title/><img src='a.jpg'/>", xml=True) == ["a.jpg"]
    assert addresses("<?x <img/> ?><![CDATA[<img/>]]>", xml=True) == []


def test_attributes_of_code_with_quotes() -> None:
    page = """<img src="{% url "a" %}" class='b'><img src="{{ url("a>b") }}" alt="c">"""
    assert addresses(page) == ['{% url "a" %}']


@pytest.mark.parametrize(
    "piece",
    [
        "<div>",
        "</p><div>",
        "{{",
        "{#",
        "<%",
        "<!--",
        "<a href=x>",
        "<img srcset='",
        "<svg>",
        '<p x="{{',
        "<img style='background:",
        "<![CDATA[",
        "<script><!--",
        "</svg><svg>",
        '<p a="{{ x }}" ',
        "<",
    ],
)
def test_no_page_takes_long(piece: str) -> None:
    page = piece * (400_000 // len(piece))
    began = time.process_time()
    find(page)
    assert time.process_time() - began < 20  # a quadratic search takes minutes


def check(page: str) -> None:
    """Bytes outside of the words stay, twice is once, and a parser sees the same but for `alt`."""
    after = filled(page)
    assert find(after) == []
    removed = re.sub(r' (?:alt|aria-label)="A &quot;cat&quot; &amp; a &lt;dog&gt;\."', "", after)
    assert removed == page
    before, now = (html5lib.parse(text) for text in (page, after))
    same(before, now)
    if not re.search("aria|role|type=image", page):
        lacking = [one for one in now.iter(f"{XHTML}img") if "alt" not in one.attrib]
        assert not lacking


def same(before: Element, after: Element) -> None:
    theirs, ours = dict(before.attrib), dict(after.attrib)
    for name in ("alt", "aria-label"):
        if name not in theirs and ours.get(name) == WORDS:
            del ours[name]
    assert (before.tag, before.text, before.tail, theirs) == (
        after.tag,
        after.text,
        after.tail,
        ours,
    )
    assert len(before) == len(after)
    for left, right in zip(before, after, strict=True):
        same(left, right)


@given(page=PAGES)
@settings(max_examples=250, deadline=None)
def test_a_parser_sees_the_same_tree(page: str) -> None:
    check(page)


@pytest.mark.slow
@given(page=PAGES)
@settings(max_examples=4000, deadline=None)
def test_a_parser_sees_the_same_tree_of_many_pages(page: str) -> None:
    check(page)


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ("", "utf-8"),
        ("\ufeff", "utf-8"),
        ("\ufeff", "utf-16-le"),
        ("<meta charset=iso-8859-1>", "latin-1"),
        ("<meta charset=shift_jis>", "shift_jis"),
        ('<meta http-equiv=a content="text/html; charset=windows-1252">', "cp1252"),
    ],
)
def test_encodings(head: str, encoding: str, tmp_path: Path) -> None:
    letters = {
        "shift_jis": "\u5199\u771f",
        "latin-1": "caf\u00e9",
        "cp1252": "\u201ccaf\u00e9\u201d",
    }
    page = f"{head}<p>{letters.get(encoding, letters['latin-1'])}\r\n<img src=a.jpg>"
    path = tmp_path / "page.html"
    path.write_bytes(page.encode(encoding))
    document = Document.read(path)
    assert document.with_words({}) == document.data
    expected = page.replace("<img", '<img alt="A cat."').encode(encoding)
    assert document.with_words({0: "A cat."}) == expected


def test_bytes_of_no_encoding_stay(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for head in (
        b"",
        b"<meta charset=shift_jis>",
        b"<meta charset=punycode>",
        b"<meta charset=zip>",
    ):
        data = head + bytes(range(128, 256)) + b"<img src=a.jpg>\xff\x00\x81"
        path.write_bytes(data)
        document = Document.read(path)
        assert document.with_words({}) == data
        written = document.with_words({0: "Caf\u00e9."})
        assert (
            written.replace(b' alt="Caf&#233;."', b"").replace(b' alt="Caf\xc3\xa9."', b"") == data
        )
