"""`nanocap alt`: what it prints, what it writes, what it leaves, and with which exit code."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from nanocap import Captioner
from nanocap.cli import group

PAGE = '<p>\r\n<img src="img/a.png">\r\n<img src="img/a.png" alt="">\r\n<img src="gone.png">'


@pytest.fixture
def site(tmp_path: Path, photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "site" / "img").mkdir(parents=True)
    photos[0].save(tmp_path / "site" / "img" / "a.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "site" / "dot.png")
    (tmp_path / "site" / "page.html").write_bytes(PAGE.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "site"


@pytest.fixture
def run(tiny_bundle: Path) -> Any:
    def call(*arguments: object) -> Result:
        return CliRunner().invoke(
            group, ["alt", "--bundle", str(tiny_bundle), *map(str, arguments)]
        )

    return call


def words(captioner: Captioner, site: Path) -> str:
    return captioner(site / "img" / "a.png").text


def test_words_are_shown_and_nothing_is_changed(run: Any, site: Path, captioner: Captioner) -> None:
    result = run("site")
    assert result.stdout.splitlines() == [
        f"site/page.html:2: img/a.png: {words(captioner, site)}",
        "site/page.html:4: gone.png: left: there is no such file",
    ]
    assert result.exit_code == 1
    assert (site / "page.html").read_bytes() == PAGE.encode()


def test_check_needs_no_model(site: Path) -> None:
    arguments = ["alt", "--check", "--bundle", "gone", "site"]
    result = CliRunner().invoke(group, arguments)
    assert result.stdout.splitlines() == [
        "site/page.html:2: img/a.png: no alternative text",
        "site/page.html:4: gone.png: no alternative text",
    ]
    assert result.exit_code == 1
    (site / "page.html").write_text('<img src=a alt="">')
    assert CliRunner().invoke(group, arguments).exit_code == 0


def test_write_changes_the_attribute_only(run: Any, site: Path, captioner: Captioner) -> None:
    page = site / "page.html"
    page.chmod(0o640)
    assert run("--write", page).exit_code == 1  # one is left
    attribute = f' alt="{words(captioner, site)}"'
    expected = PAGE.replace('<img src="img/a.png">', f'<img{attribute} src="img/a.png">')
    assert page.read_bytes() == expected.encode()
    assert page.stat().st_mode & 0o777 == 0o640
    run("--write", page)
    assert page.read_bytes() == expected.encode()  # twice is once
    assert sorted(path.name for path in site.iterdir()) == ["dot.png", "img", "page.html"]


def test_a_patch_that_git_applies(run: Any, site: Path, captioner: Captioner) -> None:
    (site / "b.md").write_text("# B\n\n![](img/a.png)")
    result = run("--diff", "site")
    subprocess.run(["git", "apply", "-"], input=result.stdout_bytes, check=True, cwd=site.parent)
    assert (site / "b.md").read_text() == f"# B\n\n![{words(captioner, site)}](img/a.png)"
    assert b' alt="' in (site / "page.html").read_bytes()
    assert "left: there is no such file" in result.stderr


def test_a_book(run: Any, site: Path, captioner: Captioner) -> None:
    book = site.parent / "b.epub"
    with zipfile.ZipFile(book, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.write(site / "img" / "a.png", "OEBPS/img/a.png")
        archive.writestr("OEBPS/text/1.xhtml", '<p>\n<img src="../img/a.png"/></p>')
    said = words(captioner, site)
    result = run("--write", book)
    assert result.stdout == f"{book}/OEBPS/text/1.xhtml:2: ../img/a.png: {said}\n"
    assert result.exit_code == 0
    with zipfile.ZipFile(book) as archive:
        page = archive.read("OEBPS/text/1.xhtml").decode()
    assert page == f'<p>\n<img alt="{said}" src="../img/a.png"/></p>'


def test_json(run: Any, site: Path, captioner: Captioner) -> None:
    good, bad = map(json.loads, run("--json", "--write", "site").stdout.splitlines())
    caption = captioner(site / "img" / "a.png")
    where = {"document": "site/page.html", "line": 2, "image": "img/a.png"}
    assert good == {**where, "alt": caption.text, "confidence": round(caption.confidence, 4)}
    assert (bad["alt"], bad["reason"]) == (None, "there is no such file")


def test_what_is_too_small_or_not_sure_is_left(run: Any, site: Path) -> None:
    (site / "page.html").write_text("<img src=dot.png>")
    assert "too small to show anything" in run("site").stdout
    (site / "page.html").write_text("<img src=img/a.png>")
    assert "the caption is not sure enough" in run("--min-confidence", 1, "site").stdout


def test_paths(run: Any, site: Path) -> None:
    (site / "notes.txt").write_text("")
    (site / "none").mkdir()
    for path, message in (
        ("site/notes.txt", "no document of a known kind; known are"),
        ("site/none", "no documents in this folder; known are"),
        ("site/gone.html", "cannot be read (No such file or directory)"),
    ):
        result = run(path)
        assert message in result.stderr
        assert result.exit_code == 1
    assert run("--write", "--diff", "site").exit_code == 2
    hidden = site / "node_modules" / "x.html"
    hidden.parent.mkdir()
    hidden.write_text("<img src=a>")
    assert "node_modules" not in run("--check", "site").stdout


def test_a_document_that_changed_meanwhile(
    run: Any, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = site / "page.html"
    from nanocap.runtime.alt import documents

    opened = documents.open_document

    def open_and_change(path: Path) -> documents.AnyDocument:
        document = opened(path)
        page.write_text("<p>")
        return document

    monkeypatch.setattr(documents, "open_document", open_and_change)
    result = run("--write", page)
    assert "it was changed meanwhile; run nanocap alt again" in result.stderr
    assert page.read_text() == "<p>"


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_a_link_to_a_document_stays_one(run: Any, site: Path) -> None:
    link = site.parent / "link.html"
    link.symlink_to(site / "page.html")
    run("--write", "--root", site, link)
    assert link.is_symlink()


ROOT = Path(__file__).parents[2]


def test_hooks_for_pre_commit(site: Path, tiny_bundle: Path) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    (site / "none.md").write_text("![A cat.](img/a.png)")
    for hook in hooks:
        program, *arguments = shlex.split(hook["entry"])
        assert program == "nanocap"
        ok = CliRunner().invoke(group, [*arguments, "site/none.md"])
        assert (ok.exit_code, ok.output) == (0, "")
        missing = CliRunner().invoke(group, [*arguments, "site/none.md", "site/page.html"])
        assert missing.exit_code == 1
        assert "site/page.html:4: gone.png" in missing.stdout


def test_the_action_runs_what_there_is(site: Path) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    steps = action["runs"]["steps"]
    commands = [step["run"] for step in steps if step.get("run", "").startswith("nanocap")]
    assert len(commands) == 2
    for command in commands:
        text = command.replace("${PATHS}", "site/none.md").removesuffix(" || true")
        (site / "none.md").write_text("![A cat.](img/a.png)")
        assert CliRunner().invoke(group, shlex.split(text)[1:]).exit_code == 0
    assert set(action["inputs"]) == {"paths", "propose"}
