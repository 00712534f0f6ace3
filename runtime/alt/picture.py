"""A picture in a document that has no alternative text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A picture without alternative text, and where its words go.

    Attributes:
        addresses: of the image, as the document names it; the best first.
        line: of the document, from 1.
        place: where the words go, in characters of the document.
        form: what is inserted there for words.
        page: of a document of many pages, the name of the one that it is in.
        reason: why a person has to write the words; empty if a caption may do.
    """

    addresses: tuple[str, ...]
    line: int
    place: int
    form: Callable[[str], str]
    reason: str = ""
    page: str = ""

    @property
    def name(self) -> str:
        """How messages name it."""
        address = self.addresses[0] if self.addresses else "(no address)"
        return address if len(address) <= 80 else f"{address[:60]}..."
