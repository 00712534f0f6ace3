"""Ids of pieces that are no text: padding, the end, and the control tokens of a caption's start.

A sequence starts with two of them: the quality of its source, and its length.
"""

from __future__ import annotations

QUALITIES = ("high", "medium", "low")
LENGTHS = ("any", "short", "long")
SPECIALS = (
    "<pad>",
    "<end>",
    "<unk>",
    *(f"<quality:{name}>" for name in QUALITIES),
    *(f"<length:{name}>" for name in LENGTHS),
)
PAD, END, UNKNOWN = 0, 1, 2
QUALITY = {name: SPECIALS.index(f"<quality:{name}>") for name in QUALITIES}
LENGTH = {name: SPECIALS.index(f"<length:{name}>") for name in LENGTHS}
PREFIX = 2  # control tokens at the start of every sequence
