"""Both pages: what they hold, that they load nothing, and that nothing from outside can act."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanocap.bundle import Bundle, default_bundle
from nanocap.bundle.manifest import Artifact
from nanocap.caption import Caption
from nanocap.errors import NanocapError
from nanocap.measure.bench.counts import Counts
from nanocap.measure.bench.machine import Machine
from nanocap.measure.bench.profile import OperatorTime
from nanocap.measure.bench.results import CaptionResult, PhotoResult, Report, RunResult, StageResult
from nanocap.measure.bench.roofline import Peaks, Roofline
from nanocap.measure.bench.timing import Timing
from nanocap.measure.metrics.evaluation import Evaluation, compare
from nanocap.measure.metrics.measures import mean_measure
from nanocap.measure.metrics.reliability import Reliability
from nanocap.measure.report.bench_page import qualities, write_bench_page
from nanocap.measure.report.cards import Photo, Side
from nanocap.measure.report.choice import ENDS, SAMPLE, choose
from nanocap.measure.report.eval_page import write_eval_page
from nanocap.measure.report.page import NAME, write_page
from nanocap.runtime.captioner import Captioner

ROOT = Path(__file__).parents[4]
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page, and whether each that opens is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def check_it_loads_nothing(html: str) -> Page:
    page = Page(html)
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in ("src", "href", "data-map", "xlink:href"):
                assert (value or "").startswith(("data:image/", "#")), (tag, name, value)
            assert not name.startswith("on"), "the policy would refuse it"
    assert not re.search(r"url\(\s*['\"]?https?:|@import|https?://", html)
    assert page.all("link") == []
    return page


def picture(seed: int, size: tuple[int, int] = (80, 60)) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size).save(file, "PNG")
    return file.getvalue()


def evaluation(texts: dict[str, str], scores: list[float]) -> Evaluation:
    measures = (
        mean_measure("cider", "CIDEr", scores, 100),
        mean_measure(
            "words", "words a caption", [len(t.split()) for t in texts.values()], better=0
        ),
    )
    return Evaluation(tuple(texts), tuple(texts.values()), measures, ())


def eval_page(folder: Path, count: int = 60, sides: int = 1) -> str:
    """A page of written captions; photo i has score i."""
    keys = [f"p{index:02d}" for index in range(count)]
    texts = [{key: f"Captioner {side} saw {key}." for key in keys} for side in range(sides)]
    texts[0][keys[0]] = f"A {EVIL} dog."
    photos = [Photo(key, picture(i), (f"ref {key} {EVIL}",)) for i, key in enumerate(keys)]
    found = [
        evaluation(one, [i / 10 + side for i in range(count)]) for side, one in enumerate(texts)
    ]
    rows = compare(*found) if sides == 2 else []
    written = [Side(f"{EVIL}{side}.jsonl", one) for side, one in enumerate(texts)]
    path = write_eval_page(folder, written, found, rows, photos, 3)
    assert path == folder / NAME
    return path.read_text(encoding="utf-8")


def test_the_eval_page_holds_every_chosen_photo_once(tmp_path: Path) -> None:
    page = check_it_loads_nothing(eval_page(tmp_path))
    keys = [f"p{index:02d}" for index in range(60)]
    sections = choose(keys, {key: float(i) for i, key in enumerate(keys)})
    chosen = {key for section in sections for key in section.keys}
    assert {*keys[:ENDS], *keys[-ENDS:]} <= chosen
    assert len(sections[0].keys) == SAMPLE
    images = page.all("img")
    assert len(images) == len(chosen)
    assert len({image["src"] for image in images}) == len(chosen), "one photo stands twice"
    assert {image["alt"] for image in images} == {
        f"A {EVIL} dog." if key == "p00" else f"Captioner 0 saw {key}." for key in chosen
    }
    assert "60 photos, 3 left out" in page.text
    assert "CIDEr 295.00" in page.text
    assert "No maps of attention for" in page.text
    anchors = [f"#{attributes['id']}" for _, attributes in page.elements if "id" in attributes]
    assert len(set(anchors)) == len(anchors)
    assert {attributes["href"] for attributes in page.all("a")} <= set(anchors)


def test_two_captioners_are_compared(tmp_path: Path) -> None:
    html = eval_page(tmp_path, count=30, sides=2)
    page = check_it_loads_nothing(html)
    assert "-100.00" in page.text
    assert "Captioner 1 saw" in page.text
    [cell] = re.findall(r"CIDEr</th>.*", html)
    assert cell.endswith("1.jsonl</td></tr>")  # the second is better
    assert len(page.all("svg")) == 2


def test_confidences_are_drawn(tmp_path: Path) -> None:
    texts = {"a": "A dog.", "b": "A cat.", "c": "A boat."}
    reliable = Reliability(np.array([0.9, 0.4, 0.1]), np.array([1.0, 1, 0]), np.array([1.0, 1, 1]))
    one = replace(evaluation(texts, [1.0, 2.0, 3.0]), reliability=reliable)
    photos = [Photo(key, picture(i), ("a dog",)) for i, key in enumerate(texts)]
    written = [Side("mine.jsonl", texts)]
    path = write_eval_page(tmp_path / "one", written, [one], [], photos, 0)
    page = check_it_loads_nothing(path.read_text(encoding="utf-8"))
    assert len(page.all("svg")) == 3
    assert "confidence 0.90: 1.00 of 1 captions" in page.text
    assert "all captions: 33.3 %" in page.text
    rows = compare(one, one)
    path = write_eval_page(tmp_path / "two", written * 2, [one, one], rows, photos, 0)
    assert len(check_it_loads_nothing(path.read_text(encoding="utf-8")).all("svg")) == 4


def test_nothing_from_outside_becomes_markup(tmp_path: Path) -> None:
    html = eval_page(tmp_path, sides=2)
    assert EVIL not in html
    page = Page(html)
    assert len(page.all("script")) == 1
    assert "alert(1)" in page.text


def test_words_of_a_bundle_have_maps(tmp_path: Path) -> None:
    names = ("cat", "wren")
    photos = [
        Photo(name, (ROOT / "samples" / "photos" / f"{name}.jpg").read_bytes(), ("one", "two"))
        for name in names
    ]
    spoken = {photo.key: Captioner()(photo.image) for photo in photos}
    side = Side.of_bundle(default_bundle(), "onnx-int8", None, spoken)
    found = evaluation(dict(side.texts), [0.5, 0.7])
    write_eval_page(tmp_path, [side], [found], [], photos, 0)
    page = check_it_loads_nothing((tmp_path / NAME).read_text(encoding="utf-8"))
    words = sum(len(text.split()) for text in side.texts.values())
    assert len(page.all("button")) == words
    for text in side.texts.values():
        assert text in page.text
    assert f"confidence {spoken['cat'].confidence:.2f}" in page.text
    maps = [button["data-map"] or "" for button in page.all("button")]
    assert len(set(maps)) > words / 2
    assert "No maps" not in page.text


def test_a_caption_of_nothing(tmp_path: Path) -> None:
    side = Side("none.jsonl", {"a": ""}, spoken={"a": Caption("", 0.1)})
    photo = Photo("a", picture(1, (20, 200)), ("ref",))
    write_eval_page(tmp_path, [side], [evaluation({"a": ""}, [0.0])], [], [photo], 0)
    page = Page((tmp_path / NAME).read_text(encoding="utf-8"))
    assert page.all("img")[0]["alt"] == "(no caption)"


def test_the_sample_is_the_same_each_time_and_ignores_scores() -> None:
    keys = [f"p{index:03d}" for index in range(200)]
    scores = {key: float(-index) for index, key in enumerate(keys)}
    sections = choose(keys, scores)
    assert sections == choose(keys, scores)
    assert sections[0] == choose(keys, None)[0]
    lowest = {*sections[1].keys, *sections[1].elsewhere}
    assert lowest == set(keys[-ENDS:])
    assert len(choose(keys[:5], scores)[0].keys) == 5


def stage(name: str, beams: int, ms: float, counted: bool) -> StageResult:
    counts = Counts(300_000_000, 20_000_000, 6_000_000, 6_000_000, 9_000_000)
    peaks = Peaks(1, 50e9, 200e9, 10e9, 40e9)
    roofline = Roofline.of(counts, peaks) if counted else None
    operators = (OperatorTime(f"Conv{EVIL}", 1.5, 0.6),) if counted else ()
    return StageResult(name, beams, Timing((ms,)), roofline, operators)


def bench_report(artifacts: dict[str, int]) -> Report:
    runs = [
        RunResult(
            artifact=name,
            threads=threads,
            load=Timing((90.0,)),
            stages=(
                stage("begin", 0, 9.0, counted=place == 0),
                *(stage("step", beams, 0.4, counted=place == 0) for beams in (1, 3)),
            ),
            captions=tuple(CaptionResult(k, Timing((18.0 + k,)), 9.5) for k in (1, 3)),
            batch=8,
            captions_per_second=60.0,
            peak_bytes=None if place else 120_000_000,
        )
        for place, name in enumerate(artifacts)
        for threads in (1, 2)
    ]
    return Report(
        bundle=f"/tmp/{EVIL}",
        name="nano-s",
        version="1.0.0",
        bytes=10_000_000,
        machine=Machine(f"A {EVIL} CPU", 2, ("avx2",), None, 0.5, "Linux", {"python": "3.11"}),
        rounds=20,
        photos=(PhotoResult("drawn", 320, 240, 20_000, Timing((2.0, 3.0))),),
        peaks=tuple(Peaks(threads, 50e9, 200e9, 10e9, 40e9) for threads in (1, 2)),
        artifact_bytes=artifacts,
        runs=tuple(runs),
        failures={"coreml": f"not {EVIL} here"},
    )


def bench_page(folder: Path) -> str:
    manifest = Bundle(default_bundle()).manifest
    report = bench_report({"onnx-int8": 10_500_000, f"other{EVIL}": 38_000_000})
    path = write_bench_page(folder, report, manifest)
    return path.read_text(encoding="utf-8")


def test_the_bench_page_holds_plots_and_tables(tmp_path: Path) -> None:
    html = bench_page(tmp_path)
    page = check_it_loads_nothing(html)
    assert EVIL not in html
    assert len(page.all("svg")) == 4  # bubbles, stages, a roofline for each number of threads
    assert len(page.all("table")) == 5
    assert "not measured (other" in page.text
    assert f"A {EVIL} CPU, 2 cores" in page.text
    assert "was left out" in page.text
    assert "35.6" in page.text or "71.1" in page.text  # GOPS of `begin`: 640 M over 9 ms


def test_quality_is_taken_from_where_most_artifacts_have_it() -> None:
    manifest = Bundle(default_bundle()).manifest

    def with_measured(*measured: dict[str, object]) -> tuple[str, dict[str, float]]:
        artifacts = tuple(
            Artifact(f"a{i}", "onnx", "fp32", 49, {}, measured=values)
            for i, values in enumerate(measured)
        )
        changed = type(manifest)(**{**manifest.__dict__, "artifacts": artifacts})
        return qualities(changed, [artifact.name for artifact in artifacts])

    def recorded(value: float) -> dict[str, object]:
        return {"quality": {"val": {"figures": {"cider": {"value": value}}}}}

    assert with_measured({}, {"bytes": 3}) == ("", {})
    assert with_measured(recorded(60.5), {}) == ("val", {"a0": 60.5})
    old = {"set": {"CIDEr": 50}}
    assert with_measured({**recorded(60.5), **old}, old) == ("set", {"a0": 50.0, "a1": 50.0})


def test_a_page_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "page"
    write_page(folder, "before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nanocap.files.whole_file.os.replace", fail)
    with pytest.raises(NanocapError, match="cannot be written"):
        write_page(folder, "after")
    assert [path.name for path in folder.iterdir()] == [NAME]
    assert (folder / NAME).read_text() == "before"
    monkeypatch.undo()
    write_page(folder, "after")
    assert (folder / NAME).read_text() == "after"
    (tmp_path / "file").write_text("x")
    with pytest.raises(NanocapError, match="cannot be written"):
        write_page(tmp_path / "file", "x")
