"""What a page shows of one photo: itself, its references, and what each captioner says of it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nanocap.bundle import Bundle
from nanocap.caption import Caption
from nanocap.image.image import load_rgb
from nanocap.measure.report.attention import Attention
from nanocap.measure.report.probes import NoAttention
from nanocap.measure.report.words import Word, data_uri, words_of

LONGEST, QUALITY = 480, 80  # pixels of a picture's longer side, and of its JPEG


@dataclass(frozen=True)
class Photo:
    """A photo as it was encoded, with its reference captions."""

    key: str
    image: bytes
    references: tuple[str, ...]


@dataclass(frozen=True)
class Side:
    """One captioner."""

    name: str  # for people
    texts: Mapping[str, str]  # captions by key
    bundle: Path | None = None  # its path; None where the captions come from a file
    artifact: str = ""  # its name, of a bundle
    length: str | None = None  # that captions were asked for with; None for the bundle's default
    spoken: Mapping[str, Caption] = field(default_factory=dict)  # a bundle's, with their pieces

    @classmethod
    def of_bundle(
        cls, bundle: Path, artifact: str, length: str | None, spoken: Mapping[str, Caption]
    ) -> Side:
        """A bundle's captioner, named after its folder."""
        texts = {key: caption.text for key, caption in spoken.items()}
        return cls(bundle.name, texts, bundle, artifact, length, spoken)


@dataclass(frozen=True)
class Said:
    """One captioner's sentence about one photo."""

    words: tuple[Word, ...]
    scores: tuple[tuple[str, str], ...]  # names and values for people


@dataclass(frozen=True)
class Card:
    """A photo on a page."""

    key: str
    anchor: str  # its name in the page's addresses
    picture: str  # a JPEG as a data URI, of `width` by `height` pixels
    width: int
    height: int
    alt: str  # what stands for it where it is not seen: the first captioner's caption
    references: tuple[str, ...]
    said: tuple[Said, ...]  # by each captioner


class Reader:
    """Makes cards of one captioner's captions.

    Attributes:
        reason: why its cards have no maps; empty where they do.
    """

    def __init__(self, side: Side) -> None:
        self.side, self.reason = side, ""
        self._attention: Attention | None = None
        if side.bundle is None:
            self.reason = f"{side.name}: captions from a file, whose captioner is not at hand"
            return
        try:
            self._attention = Attention(Bundle(side.bundle), side.artifact)
        except NoAttention as error:
            self.reason = f"{side.name}: {error}"

    def said(self, photo: Photo, scores: Sequence[tuple[str, str]]) -> Said:
        """Its sentence about `photo`."""
        caption = self.side.spoken.get(photo.key, Caption(self.side.texts[photo.key], 0.0))
        maps = None
        if self._attention is not None:
            ids = [token.id for token in caption.tokens]
            try:
                maps = self._attention.maps(photo.image, ids, self.side.length)
            except NoAttention as error:
                self._attention, self.reason = None, f"{self.side.name}: {error}"
        shown = list(scores)
        if photo.key in self.side.spoken:
            shown.append(("confidence", f"{caption.confidence:.2f}"))
        return Said(words_of(caption, maps), tuple(shown))


def card(photo: Photo, number: int, alt: str, said: Sequence[Said]) -> Card:
    """The card of a photo.

    Args:
        number: no other card of the page has it.
    """
    image = load_rgb(photo.image)
    image.thumbnail((LONGEST, LONGEST))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return Card(
        key=photo.key,
        anchor=f"photo-{number}",
        picture=data_uri(file.getvalue(), "image/jpeg"),
        width=image.width,
        height=image.height,
        alt=alt or "(no caption)",
        references=photo.references,
        said=tuple(said),
    )
