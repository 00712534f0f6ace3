"""From an image's address in a document to the image: a file, or `data:`; never the network."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, unquote_to_bytes

from nanocap.errors import ImageError
from nanocap.runtime.alt.tags import CODE

T = TypeVar("T")

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|//")  # a drive such as C: is none
SHORTEST_SIDE = 8  # pixels; what is smaller is a spacer or a counter


@dataclass(frozen=True)
class Images:
    """The images that documents below a folder may name.

    Attributes:
        root: where addresses that begin with a slash begin; nothing outside is read.
    """

    root: Path

    def find(self, addresses: tuple[str, ...], document: Path) -> Path | bytes:
        """The first image that can be read.

        Args:
            addresses: as the document names them, the best first.
            document: where relative addresses begin.

        Raises:
            ImageError: there is none; what is said is the reason of the first.
        """
        return first_of(addresses, lambda address: self._one(address, document))

    def _one(self, address: str, document: Path) -> Path | bytes:
        data = data_of(address)
        if data is not None:
            return data
        name = path_of(address)
        root = self.root.resolve()
        begin = root if name.startswith("/") else document.parent
        # of a file whose name has a percent sign in it, the address may be written as it is
        for written in dict.fromkeys((name, re.split("[?#]", address, maxsplit=1)[0])):
            path = (begin / written.lstrip("/")).resolve()
            if path.is_file():
                break
        else:
            raise ImageError("there is no such file")
        if not path.is_relative_to(root):
            raise ImageError(f"it is outside of {root}: name a --root with both in it")
        return path


def first_of(addresses: Sequence[str], read: Callable[[str], T]) -> T:
    """What `read` gives for the first address that it can read.

    Raises:
        ImageError: there is none; what is said is the reason of the first.
    """
    first: ImageError | None = None
    for address in addresses:
        try:
            return read(address)
        except ImageError as error:
            first = first or error
    raise first or ImageError("it has no address")


def path_of(address: str) -> str:
    """The path that an address names.

    Raises:
        ImageError: it is made by code, on the web, or none of a file.
    """
    if CODE.search(address) or address.startswith("{"):
        raise ImageError("its address is made by code: give it an alt there")
    if SCHEME.match(address):
        raise ImageError("it is on the web, and nanocap opens no connection")
    name = unquote(re.split("[?#]", address, maxsplit=1)[0], errors="surrogateescape")
    if not name or "\0" in name:
        raise ImageError("its address is none of a file")
    return name


def data_of(address: str) -> bytes | None:
    """What a `data:` address holds; None of another address.

    Raises:
        ImageError: it is damaged.
    """
    if address[:5].lower() != "data:":
        return None
    head, comma, body = address[5:].partition(",")
    if not comma:
        raise ImageError("its address has no data in it")
    data = unquote_to_bytes(body)
    if head.rstrip().lower().endswith(";base64"):
        try:
            return base64.b64decode(bytes(c for c in data if c not in b" \t\r\n\f"), validate=True)
        except binascii.Error as error:
            raise ImageError("its base64 is damaged") from error
    return data
