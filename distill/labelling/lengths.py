"""How long a caption may be before anybody looks at it."""

from __future__ import annotations

import re

MOST_WORDS = 100  # a long caption of a long target has 60 to 70
MOST_CHARACTERS = 2000  # however few the words
TOO_LONG = f"no whole sentence within {MOST_WORDS} words"
SHOWN = 80  # characters of a refused text in the log


def whole_sentences(text: str) -> str:
    """The text on one line, cut to the whole sentences that fit; empty where not one does.

    Half a sentence would teach half a sentence, so one that is too long is refused, not cut.
    """
    # cut before anything else: a text of megabytes costs no more than a long one; and JSON can
    # spell halves of characters, which nothing behind this could write
    begun = text[: 4 * MOST_CHARACTERS].encode("utf-8", "replace").decode()
    words = begun.split()
    plain = " ".join(words)
    if len(words) <= MOST_WORDS and len(plain) <= MOST_CHARACTERS and len(begun) == len(text):
        return plain
    fits = " ".join(words[:MOST_WORDS])[:MOST_CHARACTERS]
    ends = [found.end() for found in re.finditer(r"[.!?](?=\s)", fits + " ")]
    return fits[: ends[-1]] if ends else ""


def shortened(text: str, most: int = SHOWN) -> str:
    """The beginning of a text, for the log."""
    begun = " ".join(text[:most].encode("utf-8", "replace").decode().split())
    return begun if len(text) <= most else f"{begun}..."
