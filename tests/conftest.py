"""What tests share: a tiny bundle, and photos that are drawn on the spot.

The tiny bundle's encoder and decoder are written here as text, so that they take milliseconds, and
get the search that every student gets. They are no captioner, but all that the runtime relies on is
real in them: the caption depends on the pixels, on the control tokens and on every earlier piece
through the cache.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from PIL import Image

from nanocap import Captioner
from nanocap.bundle.manifest import (
    Artifact,
    Controls,
    Golden,
    Manifest,
    SearchDefaults,
    StateTensor,
    TokenIds,
)
from nanocap.bundle.vocabulary import Presentation, Vocabulary
from nanocap.bundle.writer import write_bundle
from nanocap.image.rule import ImageRule

SPECIAL = ["<pad>", "<end>", "<unk>", "<high>", "<medium>", "<low>", "<any>", "<short>", "<long>"]
WORDS = "a cat dog on the red blue grass sits runs near two big small house tree".split()
ENDINGS = ["s", "es", "ing", "ed"]  # pieces that continue a word
PIECES = [*SPECIAL, *(f"\u2581{word}" for word in WORDS), *ENDINGS]
SIZE, LAYERS, VISUAL, WIDTH, MAX_TOKENS = 32, 2, 4, 8, 12

# Seconds since 1970 after which no further test begins, and what the order of the files depends on:
# where time runs out, it is not the same files each time that do not run. `.ci/run` sets both.
UNTIL = float(os.environ.get("TESTS_UNTIL", "inf"))
ORDER = os.environ.get("TESTS_ORDER", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> str:
        return hashlib.sha256(f"{ORDER} {item.path.name}".encode()).hexdigest()

    if ORDER:
        items.sort(key=place)  # stable: tests of a file stay together, in their order


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.time() > UNTIL:
        pytest.skip(f"no time was left for {item.nodeid}")


def encoder(visual: int) -> str:
    """The encoder's graph, with so many visual tokens."""
    return f"""
<ir_version: 9, opset_import: ["" : 18]>
encoder (uint8[images, {SIZE}, {SIZE}, 3] pixels)
     => (float[{LAYERS}, images, {visual}, {WIDTH}] cross_keys,
         float[{LAYERS}, images, {visual}, {WIDTH}] cross_values)
{{
    numbers = Cast <to = 1> (pixels)
    mean = Constant <value_float = 127.0> ()
    deviation = Constant <value_float = 128.0> ()
    centred = Sub (numbers, mean)
    scaled = Div (centred, deviation)
    quarters = Constant <value_ints = [0, {visual}, {SIZE * SIZE // visual}, 3]> ()
    bands = Reshape (scaled, quarters)
    along = Constant <value_ints = [2]> ()
    colours = ReduceMean <keepdims = 0> (bands, along)
    key = MatMul (colours, key_weight)
    value = MatMul (colours, value_weight)
    front = Constant <value_ints = [0]> ()
    key_1 = Unsqueeze (key, front)
    value_1 = Unsqueeze (value, front)
    cross_keys = Concat <axis = 0> (key_1, key_1)
    cross_values = Concat <axis = 0> (value_1, value_1)
}}
"""


CACHE = f"float[{LAYERS}, rows, places, {WIDTH}]"
WRITTEN = f"float[{LAYERS}, rows, written, {WIDTH}]"
CROSS = f"float[{LAYERS}, images, visual, {WIDTH}]"
DECODER = f"""
<ir_version: 9, opset_import: ["" : 18]>
decoder (int64[images, beams] tokens, int64[1] position, {CROSS} cross_keys, {CROSS} cross_values,
         {CACHE} keys, {CACHE} values)
     => (float[images, beams, {len(PIECES)}] logits,
         {WRITTEN} written_keys, {WRITTEN} written_values)
{{
    embedded = Gather (embedding, tokens)
    row = Constant <value_ints = [1, -1, 1, {WIDTH}]> ()
    flat = Reshape (embedded, row)
    flat_both = Concat <axis = 0> (flat, flat)
    written_keys = Concat <axis = 2> (keys, flat_both)
    doubled = Add (flat_both, flat_both)
    written_values = Concat <axis = 2> (values, doubled)
    weight = Gather (decay, position)
    first = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    length = Add (position, one)
    near = Slice (weight, first, length, one)
    column = Constant <value_ints = [1, 1, -1, 1]> ()
    weighted = Reshape (near, column)
    recent_keys = Mul (written_keys, weighted)
    recent_values = Mul (written_values, weighted)
    recent = Add (recent_keys, recent_values)
    over = Constant <value_ints = [0, 2]> ()
    past = ReduceSum <keepdims = 0> (recent, over)
    shape = Shape (embedded)
    history = Reshape (past, shape)
    seen_both = Add (cross_keys, cross_values)
    seen = ReduceMean <keepdims = 0> (seen_both, over)
    beams_axis = Constant <value_ints = [1]> ()
    sight = Unsqueeze (seen, beams_axis)
    mixed = Add (history, sight)
    state = Tanh (mixed)
    plain = MatMul (state, output)
    ending = Gather (end_bias, position)
    logits = Add (plain, ending)
}}
"""


@dataclass(frozen=True)
class TinyWeights:
    """Random, but large enough that captions differ between images."""

    encoder: dict[str, npt.NDArray[np.float32]]
    decoder: dict[str, npt.NDArray[np.float32]]

    @classmethod
    def draw(cls, seed: int) -> TinyWeights:
        rng = np.random.default_rng(seed)

        def normal(*shape: int, scale: float) -> npt.NDArray[np.float32]:
            return (rng.normal(size=shape) * scale).astype(np.float32)

        steps = np.arange(MAX_TOKENS)
        back = steps[:, None] - steps[None, :]
        end_bias = np.zeros((MAX_TOKENS, len(PIECES)), np.float32)
        end_bias[:, 1] = steps - 4.0  # the end grows likelier with every piece
        return cls(
            encoder={
                "key_weight": normal(3, WIDTH, scale=3.0),
                "value_weight": normal(3, WIDTH, scale=3.0),
            },
            decoder={
                "embedding": normal(len(PIECES), WIDTH, scale=0.4),
                "decay": np.where(back >= 0, 0.6 ** np.abs(back), 0.0).astype(np.float32),
                "output": normal(WIDTH, len(PIECES), scale=1.2),
                "end_bias": end_bias,
            },
        )


def graph(text: str, weights: dict[str, npt.NDArray[np.float32]]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)
    return model


@cache
def tiny_search() -> tuple[Any, Any]:
    """The tiny bundle's search, and its graphs. (Here, since torch takes seconds to import.)"""
    from nanocap.convert.graphs.joining import SearchGraphs
    from nanocap.convert.graphs.modules import Sizes
    from nanocap.student.repeats import RepeatRule
    from nanocap.student.search import Search

    never = [i for i, piece in enumerate(SPECIAL) if piece != "<end>"]
    search = Search(len(PIECES), MAX_TOKENS - 1, 1, 0, never, RepeatRule(PIECES)).eval()
    sizes = Sizes(LAYERS, VISUAL, MAX_TOKENS, WIDTH, WIDTH, SIZE)
    return search, SearchGraphs.trace(sizes, search)


@cache
def tiny_state(visual: int = VISUAL) -> tuple[StateTensor, ...]:
    from nanocap.convert.graphs.modules import Sizes, state_tensors

    sizes = Sizes(LAYERS, visual, MAX_TOKENS, WIDTH, WIDTH, SIZE)
    return state_tensors(sizes, tiny_search()[0])


def tiny_graphs(visual: int = VISUAL) -> dict[str, bytes]:
    """`begin` and `step`."""
    weights, (_, graphs) = TinyWeights.draw(seed=7), tiny_search()
    begin = graphs.begin(graph(encoder(visual), weights.encoder))
    step = graphs.step(graph(DECODER, weights.decoder))
    return {"begin": begin.SerializeToString(), "step": step.SerializeToString()}


def tiny_files() -> dict[str, bytes]:
    golden = io.BytesIO()
    photo(3, (40, 30)).save(golden, "PNG")
    return {
        "README.md": b"# tiny\n",
        "golden.png": golden.getvalue(),
        **{f"onnx/{role}.onnx": data for role, data in tiny_graphs().items()},
    }


def tiny_manifest(caption: str = "?") -> Manifest:
    files = {"begin": "onnx/begin.onnx", "step": "onnx/step.onnx"}
    return Manifest(
        name="tiny",
        version="1.0.0",
        dimensions={
            "vocabulary": len(PIECES),
            "max_tokens": MAX_TOKENS,
            "layers": LAYERS,
            "width": WIDTH,
        },
        image=ImageRule(size=SIZE),
        tokens=TokenIds(pad=0, end=1, unknown=2),
        controls=Controls(
            quality={"high": 3, "medium": 4, "low": 5}, length={"any": 6, "short": 7, "long": 8}
        ),
        vocabulary=Vocabulary(tuple(PIECES), frozenset(range(len(SPECIAL)))),
        presentation=Presentation(),
        search=SearchDefaults(beams=3),
        artifacts=(Artifact("onnx-fp32", "onnx", "fp32", VISUAL, files, state=tiny_state()),),
        golden=Golden("golden.png", "onnx-fp32", caption),
        training={"data": [{"name": "none", "licence": "CC0-1.0"}], "weights": []},
    )


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle of 10 KB, with its golden caption. Tests that alter it copy it first."""
    folder, files = tmp_path_factory.mktemp("bundles"), tiny_files()
    draft = write_bundle(folder / "draft", tiny_manifest(), files)
    caption = Captioner(draft)(files["golden.png"]).text
    return write_bundle(folder / "tiny", tiny_manifest(caption), files)


@pytest.fixture(scope="session")
def captioner(tiny_bundle: Path) -> Captioner:
    return Captioner(tiny_bundle)


def photo(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A photo-like image: smooth colours, no two seeds alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    return [photo(seed) for seed in range(12)]


@pytest.fixture
def photo_files(tmp_path: Path, photos: list[Image.Image]) -> list[Path]:
    """Five photos in a folder, in the order of their names."""
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / f"{index}.png" for index in range(5)]
    for path, image in zip(paths, photos, strict=False):
        image.save(path)
    return paths
