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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from nanocap import Caption, Captioner, NanocapError
from nanocap.bundle import Bundle
from nanocap.bundle.manifest import Manifest, StateTensor
from nanocap.bundle.writer import write_bundle
from nanocap.cores import available_cores
from nanocap.errors import EngineError, EngineWarning, ImageError, OptionError
from nanocap.image.image import load_image
from nanocap.runtime.engines import load_engine
from nanocap.runtime.engines.state import State, joined, take
from nanocap.runtime.search import Searcher

from ..conftest import DECODER, TinyWeights, graph, tiny_search


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
    said = captioner.vocabulary.text(token.id for token in caption.tokens)
    assert captioner.manifest.presentation.sentence(said) == caption.text
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


def forced(engine: Any, state: State, token: int) -> State:
    """The state of one beam after a step that is fed this token."""
    return dict(engine.step({**state, "tokens": np.array([[token]])}, logits=True))


def test_the_search_scores_what_the_graphs_say(
    tiny_bundle: Path, captioner: Captioner, photos: list[Image.Image]
) -> None:
    """Fed piece by piece, whatever the search would take, the caption has the same odds."""
    bundle = Bundle(tiny_bundle)
    manifest, artifact = bundle.manifest, bundle.manifest.artifacts[0]
    engine = load_engine(artifact, bundle.load(artifact), threads=1)
    caption = captioner(photos[1], beams=4)
    state = engine.begin(load_image(photos[1], manifest.image)[None], 1, 3, 6, 1.0)
    never = [0, 2, *range(3, 9)]
    fed = [3, 6, *(token.id for token in caption.tokens)]  # high quality, any length
    for position, token in enumerate(fed):
        state = forced(engine, state, token)
        if 1 <= position < len(fed) - 1:
            odds = state["logits"][0, 0].astype(np.float64)
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
    search = Searcher.search

    def watched(searcher: Searcher, pixels: Any, options: Any) -> Any:
        shapes.append(len(pixels))
        return search(searcher, pixels, options)

    monkeypatch.setattr(Searcher, "search", watched)
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


def other_state(kind: str, tensor: StateTensor) -> StateTensor:
    """An entry of a manifest that is not what the graphs give."""
    if tensor.name != "keys":
        return tensor
    changes: dict[str, Any] = {
        "name": {"name": "stored"},
        "length": {"shape": (7, *tensor.shape[1:])},
        "axis": {"shape": (*tensor.shape[1:], tensor.shape[0])},
        "axes": {"shape": tensor.shape[:2]},
    }
    return replace(tensor, **changes[kind])


@pytest.mark.parametrize("kind", ["no array", "short", "odd ids"])
def test_graphs_that_give_what_nobody_can_read(
    kind: str, tiny_bundle: Path, tmp_path: Path, photos: list[Image.Image]
) -> None:
    """Neither the manifest nor the first state tells: still one line, no error from inside."""
    bundle = Bundle(tiny_bundle)
    artifact = bundle.manifest.artifacts[0]
    files = {path: bundle.read(path) for path in bundle.manifest.files}
    step = onnx.load_from_string(files[artifact.files["step"]])
    state = artifact.state
    if kind == "no array":
        state = tuple(tensor for tensor in state if tensor.name != "going")
    else:
        for node in step.graph.node:
            for index, name in enumerate(node.output):
                if name == "new_answer_ids":
                    node.output[index] = "true_answer_ids"
        other = np.full((1, 1) if kind == "short" else (1, 1, 11), 10**6)
        step.graph.initializer.append(onnx.numpy_helper.from_array(other, "other"))
        step.graph.node.append(onnx.helper.make_node("Identity", ["other"], ["new_answer_ids"]))
        for output in step.graph.output:
            if output.name == "new_answer_ids":
                output.type.tensor_type.ClearField("shape")
    files[artifact.files["step"]] = step.SerializeToString()
    changed = replace(bundle.manifest, artifacts=(replace(artifact, state=state),))
    captioner = Captioner(write_bundle(tmp_path / "odd", changed, files))
    for caption in (lambda: captioner(photos[0], beams=1), lambda: [*captioner.stream(photos[0])]):
        if kind == "no array":
            caption()  # it is there, though nobody listed it
            continue
        with pytest.raises(EngineError, match="do not fit its manifest") as caught:
            caption()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["name", "length", "axis", "axes"])
def test_graphs_that_do_not_fit_the_manifest(
    kind: str, tiny_bundle: Path, tmp_path: Path, photos: list[Image.Image]
) -> None:
    artifact = Bundle(tiny_bundle).manifest.artifacts[0]
    state = tuple(other_state(kind, tensor) for tensor in artifact.state)
    bundle = rebuilt(tiny_bundle, tmp_path / "other", artifacts=(replace(artifact, state=state),))
    with pytest.raises(EngineError, match="do not fit its manifest") as caught:
        Captioner(bundle)(photos)
    assert "\n" not in str(caught.value)


def test_a_model_that_gives_no_numbers_is_refused(
    tiny_bundle: Path, tmp_path: Path, photos: list[Image.Image]
) -> None:
    opened, weights = Bundle(tiny_bundle), TinyWeights.draw(seed=7).decoder
    files: dict[str, Any] = {path: opened.read(path) for path in opened.manifest.files}
    broken = {**weights, "output": np.full_like(weights["output"], np.nan)}
    step = tiny_search()[1].step(graph(DECODER, broken))
    files["onnx/step.onnx"] = step.SerializeToString()
    captioner = Captioner(write_bundle(tmp_path / "broken", opened.manifest, files))
    with pytest.raises(EngineError, match=r"^the model gave no numbers \(NaN\); its artifact is"):
        captioner(photos)


def test_a_state_of_some_images_and_one_of_several(
    tiny_bundle: Path, photos: list[Image.Image]
) -> None:
    bundle = Bundle(tiny_bundle)
    artifact = bundle.manifest.artifacts[0]
    engine = load_engine(artifact, bundle.load(artifact), threads=1)
    pixels = np.stack([load_image(image, bundle.manifest.image) for image in photos[:4]])
    state = engine.begin(pixels, 3, 3, 6, 1.0)
    for _ in range(4):
        state = engine.step(state, logits=True)
    before = {name: value.copy() for name, value in state.items()}
    alone = [take(state, artifact.state, np.array([image])) for image in range(4)]
    for image, one in enumerate(alone):
        assert one["tokens"].shape == (1, 3)
        assert one["keys"].shape[1] == 3
        np.testing.assert_array_equal(one["keys"], state["keys"][:, 3 * image : 3 * image + 3])
        np.testing.assert_array_equal(one["ids"][0], state["ids"][image])
        assert one["penalty"] is state["penalty"], "all images share it"
    for each in alone:
        each["logits"] = state["logits"][:1]
    together = joined([alone[2], alone[0]], artifact.state)
    some = take(state, artifact.state, np.array([2, 0]))
    for tensor in artifact.state:
        np.testing.assert_array_equal(together[tensor.name], some[tensor.name])
    assert together["logits"].shape == (2, *state["logits"].shape[1:])
    assert joined(alone[:1], artifact.state) is alone[0]
    ours, theirs = engine.step(some), engine.step(state)
    np.testing.assert_array_equal(ours["ids"], theirs["ids"][[2, 0]])
    for name, value in before.items():  # neither changes what it is given
        np.testing.assert_array_equal(state[name], value)


def test_calls_from_several_threads(captioner: Captioner, photos: list[Image.Image]) -> None:
    expected = captioner(photos)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: captioner(photos), range(8)):
            assert all(map(close, found, expected))


def test_the_cache_follows_the_beams(tiny_bundle: Path, photos: list[Image.Image]) -> None:
    """Every beam gets the logits that its pieces get alone, without a cache that ever moved."""
    bundle = Bundle(tiny_bundle)
    artifact = bundle.manifest.artifacts[0]
    engine = load_engine(artifact, bundle.load(artifact), threads=1)
    pixels = np.stack([load_image(image, bundle.manifest.image) for image in photos[:4]])
    state = engine.begin(pixels, 3, 3, 6, 1.0)
    moved = 0
    while state["going"].any():
        after = engine.step(state, logits=True)
        position = int(state["position"][0])
        for image, beam in np.argwhere(state["totals"] > -1e29):
            alone = engine.begin(pixels[image : image + 1], 1, 3, 6, 1.0)
            for token in [3, 6, *state["ids"][image, beam]][: position + 1]:
                alone = forced(engine, alone, token)
            np.testing.assert_allclose(
                after["logits"][image, beam], alone["logits"][0, 0], rtol=1e-4, atol=1e-5
            )
        moved += (after["ids"][..., 0] != state["ids"][..., 0]).any() and position > 1
        state = after
    assert moved, "beams change places"


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
