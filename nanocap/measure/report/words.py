"""A caption as words, each with the map of where the decoder looked."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nanocap.bundle.vocabulary import WORD_MARK
from nanocap.caption import Caption
from nanocap.measure.report.probes import Floats

# The shade over what was not looked at, and the tint over what was: red, green, blue, opacity.
AWAY, THERE = (12.0, 16.0, 34.0, 175.0), (255.0, 176.0, 0.0, 60.0)


@dataclass(frozen=True)
class Word:
    """One word of a caption, as it is shown."""

    text: str
    overlay: str = ""  # a picture to stretch over the photo, as a data URI; empty without a map


def words_of(caption: Caption, maps: Floats | None) -> tuple[Word, ...]:
    """The words of `caption`.

    Args:
        maps: [pieces, side, side], one for each of its tokens; a word of several pieces gets their
            mean. None where nothing is known.
    """
    words = caption.text.split()
    groups = _groups([token.piece for token in caption.tokens])
    if maps is None or len(groups) != len(words):
        return tuple(Word(text) for text in words)
    return tuple(
        Word(text, overlay(maps[group].mean(axis=0)))
        for text, group in zip(words, groups, strict=True)
    )


def overlay(weights: Floats) -> str:
    """A PNG as a data URI from weights [side, side]: clear over the most weight, dark over none.

    Weights are scaled by the largest: a map tells where, not how much.
    """
    share = (weights / max(float(weights.max()), 1e-12))[..., None]
    pixels = np.rint((1 - share) * np.array(AWAY) + share * np.array(THERE)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG", optimize=True)
    return data_uri(file.getvalue(), "image/png")


def data_uri(data: bytes, kind: str) -> str:
    """`data` as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _groups(pieces: Sequence[str]) -> list[list[int]]:
    """Places of the pieces of each word."""
    groups: list[list[int]] = []
    for place, piece in enumerate(pieces):
        if piece.startswith(WORD_MARK) or not groups:
            groups.append([])
        groups[-1].append(place)
    return [group for group in groups if any(pieces[place] != WORD_MARK for place in group)]
