"""Finding image files, and opening their header with Pillow: which formats, without its limit.

`PIL.Image.open` is not used for three reasons: it tries every format, some of which start other
programs (EPS) or are no photos; it imports all plugins, 50 ms, for a WebP; and its limit on pixels
is one global of the process, which a library must not set.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Iterator
from typing import IO, cast

from PIL import Image, ImageFile

from nanocap.errors import ImageError

# Format names as Pillow registers them, and the plugin that brings each; common ones first.
FORMATS = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "GIF": "GifImagePlugin",
    "BMP": "BmpImagePlugin",
    "TIFF": "TiffImagePlugin",
    "AVIF": "AvifImagePlugin",
    "PPM": "PpmImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "ICO": "IcoImagePlugin",
}
_SUFFIXES = """
    .jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .dib .tif .tiff .avif
    .ppm .pgm .pbm .pnm .jp2 .j2k .ico .heic .heif
"""
SUFFIXES = frozenset(_SUFFIXES.split())  # of the files that are looked for in a folder
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
MAX_STREAM_BYTES = 512 * 1024 * 1024  # of a pipe, which must be read whole before it is decoded


def photos_in(folder: str, refused: Callable[[OSError], None]) -> Iterator[str]:
    """Paths of the photos in a folder and below it, by their suffix, in a fixed order.

    Args:
        refused: told of each folder that cannot be listed.
    """
    for parent, folders, names in os.walk(folder, onerror=refused):
        # Hidden ones are thumbnails and the `._photo.jpg` of macOS, which are no photos.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
                yield os.path.join(parent, name)


def open_image(file: IO[bytes], name: str) -> Image.Image:
    """The image in `file` with its header read and its pixels not yet decoded.

    Args:
        file: opened for bytes; read from its start if it can seek, else from where it is.
        name: the input's name for messages.

    Raises:
        ImageError: empty, or of no format in `FORMATS`.
    """
    file = _seekable(file, name)
    prefix = file.read(16)
    if not prefix:
        raise ImageError(f"{name}: the file is empty; copy or export it again")
    if not isinstance(prefix, bytes):
        raise ImageError(f"{name}: opened as text; open it as bytes (mode 'rb')")
    if prefix[4:8] == b"ftyp" and prefix[8:12] in HEIC_BRANDS:
        return _open_heic(file, name)
    broken = ""
    for kind, plugin in FORMATS.items():
        try:
            importlib.import_module(f"PIL.{plugin}")
            factory, accept = Image.OPEN[kind]
        except (ImportError, KeyError):  # this Pillow was built without it
            continue
        accepted = accept(prefix) if accept else True
        if accepted is not True:
            broken = accepted if isinstance(accepted, str) and accepted else broken
            continue
        file.seek(0)
        try:
            return cast(Image.Image, factory(file, ""))
        except Image.DecompressionBombError:
            # WebP and GIF ask Pillow's own limit, twice 89 megapixels, once more.
            raise ImageError(f"{name}: more pixels than Pillow accepts; scale it down") from None
        except Exception as error:  # a header that starts well and then breaks
            broken = f"a damaged {kind} header: {error}"
    known = ", ".join(FORMATS)
    raise ImageError(
        f"{name}: {broken}; copy or export it again"
        if broken
        else f"{name}: not an image, whatever its name says; nanocap reads {known}"
    )


def _seekable(file: IO[bytes], name: str) -> IO[bytes]:
    try:
        file.seek(0)
        return file
    except (AttributeError, OSError):  # a pipe: /dev/stdin, <(command), a socket
        data = file.read(MAX_STREAM_BYTES + 1)
    if len(data) > MAX_STREAM_BYTES:
        raise ImageError(f"{name}: more than {MAX_STREAM_BYTES >> 20} MB from a pipe; use a file")
    return io.BytesIO(data)


def _open_heic(file: IO[bytes], name: str) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ImageError(
            f"{name}: a HEIC photo; run pip install 'nanocap[heic]', or export it as JPEG"
        ) from None
    file.seek(0)
    try:
        return cast(ImageFile.ImageFile, HeifImageFile(file, ""))
    except Exception as error:
        raise ImageError(f"{name}: a damaged HEIC header: {error}; export it again") from None
