"""Stage 4, with a scorer: how well each caption fits its photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from nanocap.distill.labelling.decision import Candidate, Decision
from nanocap.distill.scorer.similarity import ImageTextScorer

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
