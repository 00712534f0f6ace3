"""What can go wrong while converting."""

from __future__ import annotations

from nanocap.errors import NanocapError


class ConversionError(NanocapError):
    """A student cannot be converted, or what was written does not agree with it."""
