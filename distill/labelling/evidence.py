"""Stage 4, where they are given: what a scorer and a detector see in a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from nanocap.distill.labelling.decision import Candidate, Decision, Sight
from nanocap.distill.teachers.similarity import ImageTextScorer
from nanocap.errors import DataError, OptionError
from nanocap.measure.metrics.facts.words import units

# Captions of all kinds of scenes, none of them anybody's: what a caption has to beat.
STRANGERS = (
    "a brown dog runs through the grass",
    "a cat sleeps on a couch",
    "a black horse stands in a field",
    "a herd of sheep on a green hill",
    "a bird sits on a branch",
    "an elephant walks through the bush",
    "fish swim in an aquarium",
    "a butterfly on a purple flower",
    "a plate of food on a table",
    "a slice of pizza on a white plate",
    "a bowl of soup with vegetables",
    "a chocolate cake with candles",
    "fresh fruit on a market stall",
    "a cup of coffee beside a newspaper",
    "a bedroom with a large bed",
    "a kitchen with white cabinets",
    "a bathroom with a sink and a mirror",
    "a living room with a sofa and a television",
    "an office desk with a computer",
    "shelves full of books in a library",
    "a city street with tall buildings",
    "cars in heavy traffic at night",
    "a red bus drives down the road",
    "a train stops at a station",
    "an airplane flies in the blue sky",
    "a boat on a calm lake",
    "a bridge over a wide river",
    "an old church with a tower",
    "mountains covered with snow",
    "waves break on a sandy beach",
    "a waterfall in a green forest",
    "a sunset over the sea",
    "a field of yellow flowers",
    "a man rides a wave on a surfboard",
    "a skier goes down a steep slope",
    "a boy on a skateboard does a trick",
    "football players fight for the ball",
    "a tennis player swings her racket",
    "a cyclist races through a town",
    "children play on a swing in a park",
    "a baby in a white dress smiles",
    "a woman in a red coat holds an umbrella",
    "two men in suits shake hands",
    "a crowd at a concert",
    "a musician plays the guitar on a stage",
    "a doctor looks at a patient in a hospital",
    "workers with helmets at a building site",
    "a pair of black leather shoes",
    "a gold ring with a diamond",
    "a drawing of a house on white paper",
)
SURE = 0.5  # score of the best box from which an object is seen
SUSPECTED = 0.1  # and below which it is absent
PADDING = 114  # grey beside a photo that is not square, as YOLOX was trained
BOX = 5  # of a row of the output: four numbers of a box and its own score
# Labels whose word means more things than the detector knows.
AMBIGUOUS = frozenset({"bear", "book", "chair", "mouse", "orange", "person", "tie"})


class LineUp:
    """A scorer, and captions of other scenes among which that of a photo must stand out.

    A cosine alone says little: photos differ in how well any text fits them. The strangers are the
    same for every photo, so a figure depends on nothing but its photo and its caption.
    """

    def __init__(self, scorer: ImageTextScorer, path: Path):
        self.scorer, self.path = scorer, path
        self._strangers = scorer.embed_texts(STRANGERS)

    @classmethod
    def load(cls, path: Path) -> LineUp:
        """The `scorer.safetensors` of `nanocap scorer`.

        Raises:
            NanocapError: the file is missing, damaged, or has no tokenizer.
        """
        return cls(ImageTextScorer.load(path), path)

    def match(self, decisions: Sequence[Decision], images: Sequence[Image.Image]) -> list[Decision]:
        """The decisions with `match` and `line_up` of every kept candidate."""
        texts = [one.text for decision in decisions for one in decision.kept]
        if not texts:
            return list(decisions)
        seen = self.scorer.embed_images(list(images))
        read = iter(self.scorer.embed_texts(texts))
        strangers = seen @ self._strangers.T
        found = []
        for photo, bar, decision in zip(seen, strangers, decisions, strict=True):

            def measured(
                one: Candidate, photo: np.ndarray = photo, bar: np.ndarray = bar
            ) -> Candidate:
                cosine = float(photo @ next(read))
                return replace(one, match=cosine, line_up=float((bar < cosine).mean()))

            found.append(decision.with_candidates(measured))
        return found


class Detector:
    """A YOLOX detector as its authors export it to ONNX (Ge et al. 2021).

    It takes BGR pixels from 0 to 255, [1, 3, S, S], the photo in the upper left corner; it gives
    [1, boxes, 5 + labels], where each label's score is to be multiplied with that of its box.
    Where the boxes are does not matter here.

    Args:
        path: of the `.onnx` file.
        labels: a text file, one label a line, in the order of the output.
        threads: that it computes with; None: one a core.
    Raises:
        DataError: a file cannot be read, or is something else.
        OptionError: the labels are not as many as the detector's.
    """

    def __init__(self, path: Path, labels: Path, threads: int | None = None):
        self.path, self.labels = path, labels
        try:
            names = labels.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{labels}: labels cannot be read ({error})") from error
        names = [name.strip() for name in names if name.strip()]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # see threads.py
        try:
            # the file is read here: the library's own message about a missing one has no reason
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises many kinds
            reason = error.strerror if isinstance(error, OSError) else "no ONNX file"
            raise DataError(f"{path}: detector cannot be loaded ({reason})") from error
        given = self._session.get_inputs()[0]
        if len(given.shape) != 4 or not all(isinstance(n, int) for n in given.shape[1:]):
            raise DataError(f"{path}: not a YOLOX detector: its input is {given.shape}")
        self._input, self._size = given.name, int(given.shape[2])
        width = self._session.get_outputs()[0].shape[-1]
        if width != BOX + len(names):
            raise OptionError(f"{labels}: {len(names)} labels, but {path} gives {width} - {BOX}")
        self._seen = [_name(label) for label in names]
        # "potted plant" is in the lexicon as plant: not to see one does not mean no plants
        self._exact = [
            name == label and name not in AMBIGUOUS
            for label, name in zip(names, self._seen, strict=True)
        ]

    def look(self, images: Sequence[Image.Image]) -> list[Sight]:
        """What is in each photo, of what the fact lexicon has a name for."""
        return [self._sight(self._scores(image)) for image in images]

    def _scores(self, image: Image.Image) -> NDArray[np.float32]:
        """The best score of each label."""
        size = self._size
        scale = size / max(image.size)
        fitted = image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))),
            Image.Resampling.BILINEAR,
        )
        square = np.full((size, size, 3), PADDING, np.float32)
        square[: fitted.height, : fitted.width] = np.asarray(fitted.convert("RGB"))[:, :, ::-1]
        pixels = np.ascontiguousarray(square.transpose(2, 0, 1)[None])
        boxes = self._session.run(None, {self._input: pixels})[0][0]
        best: NDArray[np.float32] = (boxes[:, BOX - 1 : BOX] * boxes[:, BOX:]).max(axis=0)
        return best

    def _sight(self, scores: NDArray[np.float32]) -> Sight:
        seen, absent = set(), set()
        for name, exact, score in zip(self._seen, self._exact, scores, strict=True):
            if name and score >= SURE:
                seen.add(name)
            elif name and exact and score < SUSPECTED:
                absent.add(name)
        return Sight(frozenset(seen), frozenset(absent - seen))


def _name(label: str) -> str:
    """The lexicon's name of a label, of its last word where it has several; empty if none."""
    names = [unit.noun for unit in units(label) if unit.noun]
    return names[-1] if names else ""
