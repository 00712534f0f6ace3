"""The documentation: links resolve, examples run, and commands and files that are named exist.

The pages are those of the checkout, whether or not an installed copy is tested.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
from PIL import Image

from nanocap import Captioner
from nanocap.cli import VERBS, Verbs
from nanocap.distill.recipes.recipe import load_recipe
from nanocap.distill.recipes.records import read_toml

ROOT = Path(__file__).parents[1]
FOLDERS = ("nanocap", "runtime", "distill", "convert", "bindings", "docs", "samples", "tests")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.md")
        if "node_modules" not in path.parts
    ),
]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
URL = re.compile(r"\b([a-z][a-z0-9+.-]*)://([^\s)>\]\"'`]+)")
FILE = re.compile(r"(?<![\w./-])(?:[\w.-]+/)*[\w-]+\.(?:py|toml)\b")
BENCHMARK = re.compile(r"\btests/benchmarks/[\w-]+(?:\.\w+)?")
EXAMPLES = {"my.toml"}  # a file that the reader makes
TOGETHER = re.compile(r"\\\n\s*")  # a command that goes on in the next line

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(text: str) -> str:
    """A page without its fenced blocks and code spans."""
    return SPAN.sub("", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings of a page."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        base = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        name, number = base, 0
        while name in found:
            number += 1
            name = f"{base}-{number}"
        found.add(name)
    return found


def broken(page: Path, text: str) -> list[str]:
    """Relative links of a page to a file or heading that is not there."""
    wrong = []
    for target in LINK.findall(prose(text)):
        parts = urlsplit(target)
        if parts.scheme:
            continue
        file = page.parent / unquote(parts.path) if parts.path else page
        aim = text if file == page else ""
        if not file.exists():
            wrong.append(f"{target}: no such file")
        elif parts.fragment:
            aim = aim or file.read_text(encoding="utf-8")
            if parts.fragment not in anchors(aim):
                wrong.append(f"{target}: no such heading")
    return wrong


def code_lines(text: str) -> Iterator[str]:
    """Code spans, and each line of fenced and indented blocks with what continues it."""
    text = TOGETHER.sub(" ", text)
    for line in "\n".join(body for _, body in FENCE.findall(text)).splitlines():
        yield line.strip()
    rest = FENCE.sub("", text)
    yield from (line.strip() for line in rest.splitlines() if line.startswith("    "))
    yield from (" ".join(span.split()) for span in SPAN.findall(rest))


def commands(text: str) -> Iterator[list[str]]:
    """The words behind each `nanocap` of a page: a verb, its arguments and options."""
    for line in code_lines(text):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # half a quotation: not a command
            continue
        for operator, part in groupby(words, lambda word: bool(word) and set(word) <= set("|&;")):
            part = list(part)
            if not operator and "nanocap" in part[:-1] and not {"install", "import"} & {*part}:
                yield part[part.index("nanocap") + 1 :]


def unknown(words: list[str]) -> list[str]:
    """What a command names that the command line does not have."""
    group = Verbs()
    context = click.Context(group)
    verb, *rest = words
    if verb == "VERB":
        return []
    command = group.get_command(context, verb) if verb in VERBS else None
    if command is None:
        return [f"nanocap {verb}"]
    known = {"-h", "--help"}
    known |= {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    options = [word.partition("=")[0] for word in rest if re.match(r"--?[A-Za-z0-9]", word)]
    return [f"nanocap {verb} {option}" for option in options if option not in known]


def public(host: str) -> bool:
    """Whether anyone can reach a host of that name."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        private = ("localhost", "local", "internal", "example", "test", "invalid", "lan", "home")
        return "." in host and host.rsplit(".", 1)[1] not in private


@pages
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


@pages
def test_links_to_other_sites_are_public_and_encrypted(page: Path) -> None:
    for scheme, rest in URL.findall(page.read_text(encoding="utf-8")):
        host = urlsplit(f"{scheme}://{rest}").hostname or ""
        assert scheme == "https", f"{scheme}://{rest}"
        assert public(host), f"{scheme}://{rest}"


@pages
def test_commands_exist_with_their_options(page: Path) -> None:
    found = list(commands(page.read_text(encoding="utf-8")))
    assert [wrong for words in found for wrong in unknown(words)] == []


@pages
def test_files_that_are_named_exist(page: Path) -> None:
    text = "\n".join(code_lines(page.read_text(encoding="utf-8")))
    places = (page.parent, ROOT, ROOT / "distill" / "recipes")
    named = {*FILE.findall(text), *BENCHMARK.findall(text)} - EXAMPLES
    named = {name for name in named if not name.startswith(("runs/", "__"))}
    missing = [name for name in named if not any((place / name).exists() for place in places)]
    assert missing == []


def python_blocks() -> Iterator[object]:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        blocks = [body for language, body in FENCE.findall(text) if language == "python"]
        for number, block in enumerate(blocks, 1):
            yield pytest.param(block, id=f"{page.name}-{number}")


@pytest.mark.parametrize("block", list(python_blocks()))
def test_examples_run(
    block: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, sample in (("photo", "cat"), ("a", "wren"), ("b", "osprey")):
        shutil.copy(ROOT / "samples" / "photos" / f"{sample}.jpg", tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README", "exec"), {"__name__": "__main__"})
    assert "cat" in capsys.readouterr().out


@pages
def test_recipes_load(page: Path, tmp_path: Path) -> None:
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "toml":
            recipe = tmp_path / "recipe.toml"
            recipe.write_text(block, encoding="utf-8")
            if {"data", "stages"} <= read_toml(recipe).keys():  # else a part of one
                load_recipe(recipe)


def test_the_strip_shows_what_the_shipped_model_says() -> None:
    """Where this fails, `python docs/strip.py` draws the strip and its text anew."""
    [(text, target)] = re.findall(
        r"!\[([^]]*)\]\((docs/strip\.\w+)\)", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    captioner = Captioner(threads=1)
    shown = re.findall(r"(\w+): ([A-Z][^.]*\.)", text)
    assert len(shown) == 5
    for name, caption in shown:
        [photo] = (ROOT / "samples").glob(f"*/{name.lower()}.jpg")
        assert captioner(photo).text == caption
    strip = ROOT / target
    assert strip.stat().st_size < 400_000
    with Image.open(strip) as image:
        assert image.height * 880 / image.width <= 200  # on a page 880 pixels wide


PAGE = """
# A page: one, two
## Same
## Same

[file](there.py), [gone](gone.py), [heading](#a-page-one-two), [second](#same-1), [no](#same-2)

    nanocap caption --beams 1 \\
      --colour photo.jpg | nanocap paint -
    pip install nanocap --pre  # nanocap paint; nanocap paint

`nanocap eval --data x` and `nanocap VERB --help`
"""


def test_the_checks_themselves_find_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    (tmp_path / "there.py").touch()
    found = list(commands(PAGE))
    assert [words[0] for words in found] == ["caption", "paint", "eval", "VERB"]
    assert [wrong for words in found for wrong in unknown(words)] == [
        "nanocap caption --colour",
        "nanocap paint",
    ]
    wrong = broken(page, PAGE)
    assert "gone.py: no such file" in wrong
    assert "#same-2: no such heading" in wrong
    assert not any("a-page" in one or "same-1" in one for one in wrong)
    assert public("arxiv.org")
    assert not any(map(public, ("localhost", "10.0.0.1", "host.internal", "printer")))
