"""The words of the API, on a real engine with tiny graphs."""

from __future__ import annotations

import copy
import io
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nanocap import Caption, Captioner, NanocapError
from nanocap.bundle import Bundle
from nanocap.bundle.manifest import Manifest
from nanocap.bundle.writer import write_bundle
from nanocap.cores import available_cores
from nanocap.errors import EngineError, EngineWarning, ImageError, OptionError
from nanocap.image.image import load_image
from nanocap.runtime.decoding import search
from nanocap.runtime.engines import load_engine
from nanocap.runtime.state import DecoderState


def close(first: Caption, second: Caption) -> bool:
    """Same words, and the same probabilities up to the order of a sum."""
    return (
        first.text == second.text
        and [t.id for t in first.tokens] == [t.id for t in second.tokens]
        and math.isclose(first.confidence, second.confidence, rel_tol=1e-4)
    )


def test_a_caption(captioner: Captioner, photos: list[Image.Image]) -> None:
    caption = captioner(photos[0])
    assert str(caption) == caption.text
    assert caption.text[0].isupper()
    assert caption.text.endswith(".")
    assert 0 < caption.confidence < 1
    assert captioner.vocabulary.sentence(token.id for token in caption.tokens) == caption.text
    assert all(0 < token.probability <= 1 for token in caption.tokens)
    assert [t.piece for t in caption.tokens] == [
        captioner.vocabulary.pieces[t.id] for t in caption.tokens
    ]
    with pytest.raises(AttributeError):
        caption.text = "other"  # type: ignore[misc]


def test_different_photos_get_different_captions(
    captioner: Captioner, photos: list[Image.Image]
) -> None:
    assert len({caption.text for caption in captioner(photos)}) >= 6


SOURCES: dict[str, Callable[[Path], Any]] = {
    "str": str,
    "path": lambda path: path,
    "bytes": lambda path: path.read_bytes(),
    "file": lambda path: path.open("rb"),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "PIL": Image.open,
    "array": lambda path: np.asarray(Image.open(path)),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_source_gives_the_same_caption(
    kind: str, captioner: Captioner, photo_files: list[Path]
) -> None:
    expected = captioner(str(photo_files[0]))
    assert captioner(SOURCES[kind](photo_files[0])) == expected
    assert captioner([SOURCES[kind](photo_files[0])]) == [expected]


def test_several_captions_of_a_photo(captioner: Captioner, photos: list[Image.Image]) -> None:
    for image, several in zip(photos, captioner(photos, n_best=4), strict=True):
        best = captioner(image, beams=4)
        assert (several.text, several.tokens) == (best.text, best.tokens)
        assert best.alternatives == ()
        texts = [several.text, *(other.text for other in several.alternatives)]
        assert 2 <= len(set(texts)) == len(texts) <= 4
        assert all(other.tokens and not other.alternatives for other in several.alternatives)
        fewer = captioner(image, n_best=2, beams=4)
        assert fewer.alternatives == several.alternatives[: len(fewer.alternatives)]


@pytest.mark.parametrize("beams", [1, 3, 5])
@pytest.mark.parametrize("batch_size", [2, 5, 100])
def test_a_batch_equals_one_by_one(
    beams: int, batch_size: int, captioner: Captioner, photos: list[Image.Image]
) -> None:
    alone = [captioner(image, beams=beams) for image in photos]
    batch = captioner(iter(photos), beams=beams, batch_size=batch_size)
    assert len(batch) == len(photos)
    assert all(map(close, batch, alone))


def test_nothing_in_nothing_out(captioner: Captioner) -> None:
    assert captioner([]) == []


def test_the_search_scores_what_the_graphs_say(
    tiny_bundle: Path, captioner: Captioner, photos: list[Image.Image]
) -> None:
    """Fed piece by piece with one beam, without the search, the caption has the same odds."""
    bundle = Bundle(tiny_bundle)
    manifest, artifact = bundle.manifest, bundle.manifest.artifacts[0]
    engine = load_engine(artifact, bundle.load(artifact), threads=1)
    caption = captioner(photos[1], beams=4)
    cross = engine.encode(load_image(photos[1], manifest.image)[None])
    sizes = manifest.sizes
    shape = (sizes.layers, 1, sizes.max_tokens, sizes.cache_width)
    cache = (np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    never = [0, 2, *range(3, 9)]
    fed = [3, 6, *(token.id for token in caption.tokens)]  # high quality, any length
    for position, token in enumerate(fed):
        logits, cache = engine.step(np.array([[token]]), position, cross, cache)
        if 1 <= position < len(fed) - 1:
            odds = logits[0, 0].astype(np.float64)
            odds[[*never, *([1] if position == 1 else [])]] = -np.inf
            odds = np.exp(odds - odds.max())
            expected = odds[fed[position + 1]] / odds.sum()
            assert caption.tokens[position - 1].probability == pytest.approx(expected, rel=1e-4)


def test_control_and_special_ids_are_never_said(
    captioner: Captioner, photos: list[Image.Image]
) -> None:
    for caption in captioner(photos, beams=5):
        assert caption.tokens
        assert min(token.id for token in caption.tokens) >= 9


def test_length_reaches_the_model(captioner: Captioner, photos: list[Image.Image]) -> None:
    texts = {length: [c.text for c in captioner(photos, length=length)] for length in
             ("any", "short", "long")}  # fmt: skip
    assert texts["any"] != texts["short"] != texts["long"]
    assert [c.text for c in captioner(photos)] == texts["any"], "the bundle's default"


def test_length_penalty(captioner: Captioner, photos: list[Image.Image]) -> None:
    counts = [
        sum(len(c.tokens) for c in captioner(photos, length_penalty=penalty, beams=5))
        for penalty in (0.0, 1.0, 3.0)
    ]
    assert counts[0] < counts[2]
    assert counts[0] <= counts[1] <= counts[2]


@pytest.mark.parametrize("length", [None, "short", "long"])
def test_a_stream_joined_is_the_greedy_caption(
    length: str | None, captioner: Captioner, photos: list[Image.Image]
) -> None:
    counts = []
    for image in photos:
        pieces = list(captioner.stream(image, length=length))
        assert "".join(pieces) == captioner(image, beams=1, length=length).text
        counts.append(len(pieces))
    assert max(counts) > 2, "it comes piece by piece"


def test_attempt_goes_on_after_a_failure(captioner: Captioner, photos: list[Image.Image]) -> None:
    sources = [photos[0], "gone.jpg", photos[1], b"", b"text", photos[2]]
    for batch_size in (1, 2, 8):
        outcomes = list(captioner.attempt(sources, batch_size=batch_size))
        assert [isinstance(o, ImageError) for o in outcomes] == [False, True, False, True, True,
                                                                False]  # fmt: skip
        captions = [o for o in outcomes if isinstance(o, Caption)]
        assert all(map(close, captions, captioner(photos[:3])))
    with pytest.raises(ImageError, match=r"gone.jpg: there is no such file"):
        captioner(sources)


def test_attempt_reads_no_further_than_it_must(
    captioner: Captioner, photos: list[Image.Image]
) -> None:
    taken = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield photos[0]

    outcomes = captioner.attempt(endless(), batch_size=2)
    next(outcomes)
    assert len(taken) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams must be at least 1, got 0"),
        ({"beams": 2, "n_best": 3}, "n_best must be at most the number of beams, 2, got 3"),
        ({"length_penalty": -0.5}, "length_penalty must be at least 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"length": "huge"}, "length must be one of any, short, long with this bundle, got 'huge'"),
        ({"length": ["short"]}, "length must be a text"),
        ({"beams": "3"}, "beams must be a whole number, got '3'"),
        ({"beams": 5000}, "beams must be at most 64, got 5000"),
        ({"n_best": 65}, "n_best must be at most 64"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"batch_size": 100_000}, "batch_size must be at most 1024"),
        ({"length_penalty": "1"}, "length_penalty must be a number"),
        ({"length_penalty": float("inf")}, "length_penalty must be a number"),
    ],
)
def test_options_that_cannot_be(
    options: dict[str, Any], message: str, captioner: Captioner, photos: list[Image.Image]
) -> None:
    with pytest.raises(OptionError, match=message):
        captioner(photos[0], **options)


def test_one_image_is_one_image_for_attempt(captioner: Captioner, photo_files: list[Path]) -> None:
    expected = captioner(photo_files[0])
    for source in (str(photo_files[0]), photo_files[0], photo_files[0].read_bytes()):
        assert list(captioner.attempt(source)) == [expected]


def test_what_may_wait_is_captioned_one_by_one(
    captioner: Captioner, photos: list[Image.Image]
) -> None:
    taken = []

    def camera() -> Any:
        for photo in photos:
            taken.append(photo)
            yield photo

    for count, _ in enumerate(captioner.attempt(camera()), start=1):
        assert len(taken) == count


def test_many_beams_of_many_images_go_through_in_parts(
    captioner: Captioner, photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = captioner(photos, beams=4)
    monkeypatch.setattr("nanocap.runtime.captioner.MOST_ROWS", 10)  # two images of four beams
    shapes = []
    state = captioner._model.state
    monkeypatch.setattr(
        captioner._model, "state", lambda pixels, prefix: shapes.append(len(pixels)) or state(
            pixels, prefix)
    )  # fmt: skip
    assert all(map(close, captioner(photos, beams=4, batch_size=12), expected))
    assert shapes == [2] * 6


FORK = """
import os, sys
from nanocap import Captioner
captioner = Captioner(sys.argv[1])
print(captioner(sys.argv[2]), flush=True)
child = os.fork()
if child == 0:
    if sys.argv[3] == "use":
        print(captioner(sys.argv[2]), flush=True)
    sys.exit(7)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
print(captioner(sys.argv[2]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("what", ["exit", "use"])
def test_a_forked_process_captions_and_ends(
    what: str, photo_files: list[Path], captioner: Captioner, tiny_bundle: Path
) -> None:
    command = [sys.executable, "-c", FORK, str(tiny_bundle), str(photo_files[0]), what]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    text = captioner(photo_files[0]).text
    expected = [text, *([text] if what == "use" else []), "7", text]
    assert run.stdout.splitlines() == expected, run.stderr


def test_a_captioner_is_pickled_and_copied(tiny_bundle: Path, photos: list[Image.Image]) -> None:
    captioner = Captioner(tiny_bundle, threads=1, max_pixels=5000)
    for again in (pickle.loads(pickle.dumps(captioner)), copy.deepcopy(captioner)):
        assert again is not captioner
        assert again(photos[0]) == captioner(photos[0])
        with pytest.raises(ImageError, match="above the limit"):
            again(Image.new("RGB", (100, 51)))


def test_more_threads_than_cores_are_lowered(tiny_bundle: Path) -> None:
    with pytest.warns(EngineWarning, match=r"^threads 999: taking [0-9]+, one a core"):
        captioner = Captioner(tiny_bundle, threads=999)
    assert captioner._model.threads == available_cores()


def test_sources_that_cannot_be(captioner: Captioner) -> None:
    with pytest.raises(ImageError, match=r"^int object: not an image"):
        captioner(5)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "coreml"}, r"no artifact for engine coreml; it has onnx-fp32 \(engine onnx, 4"),
        ({"artifact": "onnx-int8"}, "no artifact for onnx-int8"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"max_pixels": 0}, "max_pixels must be at least 1"),
        ({"threads": 2.5}, "threads must be a whole number, got 2.5"),
        ({"max_pixels": "many"}, "max_pixels must be a whole number"),
        ({"deadline_ms": "soon"}, "deadline_ms must be a number"),
        ({"tokens": "49"}, "tokens must be a whole number"),
        ({"engine": 5}, "no artifact for engine 5"),
        ({"artifact": 5}, "no artifact for 5"),
        ({"providers": 5}, "providers must be a list of names"),
        ({"providers": [5]}, "unknown provider 5"),
    ],
)
def test_a_captioner_that_cannot_be(
    options: dict[str, Any], message: str, tiny_bundle: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        Captioner(tiny_bundle, **options)


def test_engine_artifact_and_threads(tiny_bundle: Path, photos: list[Image.Image]) -> None:
    expected = Captioner(tiny_bundle)(photos[0])
    for options in ({"engine": "onnx"}, {"artifact": "onnx-fp32"}, {"threads": 1}, {"threads": 2}):
        assert close(Captioner(tiny_bundle, **options)(photos[0]), expected)  # type: ignore[arg-type]


def rebuilt(tiny_bundle: Path, target: Path, **changes: Any) -> Path:
    """The tiny bundle with other values in its manifest."""
    bundle = Bundle(tiny_bundle)
    values = {**bundle.manifest.__dict__, **changes}
    files = {path: bundle.read(path) for path in bundle.manifest.files}
    return write_bundle(target, Manifest(**values), files)


def test_a_backend_of_a_newer_version(tiny_bundle: Path, tmp_path: Path) -> None:
    artifact = Bundle(tiny_bundle).manifest.artifacts[0]
    newer = artifact.__class__(**{**artifact.__dict__, "backend": "quantum"})
    bundle = rebuilt(tiny_bundle, tmp_path / "newer", artifacts=(newer,))
    with pytest.raises(EngineError, match="has no backend 'quantum'"):
        Captioner(bundle)


def test_graphs_that_do_not_fit_the_manifest(
    tiny_bundle: Path, tmp_path: Path, photos: list[Image.Image]
) -> None:
    dimensions = {**Bundle(tiny_bundle).manifest.dimensions, "layers": 3}
    bundle = rebuilt(tiny_bundle, tmp_path / "other", dimensions=dimensions)
    with pytest.raises(EngineError, match="do not fit its manifest") as caught:
        Captioner(bundle)(photos[0])
    assert "\n" not in str(caught.value)


def test_calls_from_several_threads(captioner: Captioner, photos: list[Image.Image]) -> None:
    expected = captioner(photos)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: captioner(photos), range(8)):
            assert all(map(close, found, expected))


def test_the_cache_follows_the_beams(
    tiny_bundle: Path, captioner: Captioner, photos: list[Image.Image]
) -> None:
    """A state that recomputes every beam from its ids agrees with the one that moves the cache."""
    bundle = Bundle(tiny_bundle)
    artifact, sizes = bundle.manifest.artifacts[0], bundle.manifest.sizes
    engine = load_engine(artifact, bundle.load(artifact), threads=1)
    pixels = np.stack([load_image(image, bundle.manifest.image) for image in photos[:4]])

    class Recomputing:
        def __init__(self) -> None:
            self.images = np.arange(4)
            self.past = np.zeros((4, 1, 0), dtype=np.int64)

        def logits(self) -> Any:
            images, beams, length = self.past.shape
            cross = engine.encode(np.repeat(pixels[self.images], beams, axis=0))
            fresh = DecoderState(engine, cross, (3, 6), sizes)
            out = fresh.start()
            for t in range(length):
                out = fresh.step(self.past[..., t].reshape(-1, 1), np.zeros((images * beams, 1),
                                 np.int64), None)[:, 0]  # fmt: skip
            return out.reshape(images, beams, -1)

        def start(self) -> Any:
            return self.logits()[:, 0]

        def step(self, tokens: Any, parents: Any, images: Any) -> Any:
            if images is not None:
                self.images, self.past = self.images[images], self.past[images]
            past = np.take_along_axis(self.past, parents[..., None], axis=1)
            self.past = np.concatenate([past, tokens[..., None]], axis=2)
            return self.logits()

    options = captioner._options(3, None)
    moving = search(DecoderState(engine, engine.encode(pixels), (3, 6), sizes), options)
    fresh = search(Recomputing(), options)
    assert [h.ids for h in moving] == [h.ids for h in fresh]
    np.testing.assert_allclose([h.score for h in moving], [h.score for h in fresh], rtol=1e-4)


def test_importing_nanocap_is_cheap_and_a_caption_needs_no_training_package(
    tiny_bundle: Path, photo_files: list[Path]
) -> None:
    code = (
        "import sys, nanocap; early = {'numpy', 'PIL', 'onnxruntime'} & set(sys.modules);"
        f"print(nanocap.Captioner({str(tiny_bundle)!r})({str(photo_files[0])!r}));"
        "late = {'torch', 'tokenizers', 'onnx', 'socket', 'ssl'} & set(sys.modules);"
        "print(sorted(early | late))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sentence, loaded = run.stdout.splitlines()
    assert sentence.endswith(".")
    assert loaded == "[]"


def test_names_of_the_package() -> None:
    import nanocap

    assert nanocap.__version__ == "0.1.0"
    assert {"Caption", "Captioner", "NanocapError"} <= set(dir(nanocap))
    assert issubclass(ImageError, NanocapError)
    with pytest.raises(AttributeError, match="no attribute 'Captioneer'"):
        _ = nanocap.Captioneer
