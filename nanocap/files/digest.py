"""What a file holds, as one short text."""

from __future__ import annotations

import hashlib
from pathlib import Path

BLOCK = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits. (Python 3.10 has no `hashlib.file_digest`.)"""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()
