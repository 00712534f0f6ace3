"""Bundles: everything a caption needs, in a folder or one `.zip`.

Reading order: `bundle`, `stores` (where its files are), `manifest` and `fields` (what it says of
itself), `vocabulary`, `precisions`, `writer`, `quality` and `card` (what it is worth).
"""

from __future__ import annotations

from nanocap.bundle.bundle import MANIFEST, Bundle, default_bundle

__all__ = ["MANIFEST", "Bundle", "default_bundle"]
