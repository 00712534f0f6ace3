"""Finding image files, and opening their header with Pillow: which formats, without its limit.

`PIL.Image.open` is not used for three reasons: it tries every format, some of which start other
programs (EPS) or are no photos; it imports all plugins, 50 ms, for a WebP; and its limit on pixels
is one global of the process, which a library must not set.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any, cast

from PIL import Image, ImageFile

from nanocap.bounds import MAX_PIXELS
from nanocap.errors import ImageError
from nanocap.files.regular_file import odd_kind
from nanocap.image.decoding import header, tiff
from nanocap.image.decoding.header import MAX_HEADER, HeaderTooLongError, MeteredFile
from nanocap.image.decoding.limits import Piped, file_bytes, memory_limit
from nanocap.image.decoding.png import PlainPng

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
SUFFIXES = frozenset(  # of the files that are looked for in a folder
    """
    .jpg .jpeg .jpe .jfif .pjpeg .pjp .mpo .png .apng .webp .gif .bmp .dib .tif .tiff
    .avif .avifs .ppm .pgm .pbm .pnm .pfm .jp2 .j2k .jpc .jpf .jpx .j2c .ico
    .heic .heics .heif .heifs .hif
    """.split()
)
WHOLE = {"WEBP", "AVIF"}  # formats whose plugins read the file whole as they open it
BLOCK = 1 << 20  # bytes that are read at once from a pipe
ICON_SIDE = 2048  # of a bitmap in an icon; Windows knows 256


def photos_in(folder: str, refused: Callable[[OSError], None]) -> Iterator[str]:
    """Paths of the photos in a folder and below it, by their suffix, in a fixed order.

    Links to folders are followed after all else, and no folder is gone through twice. Links to
    nowhere are among the paths.

    Args:
        refused: told of each folder that cannot be listed, and of each photo, by its suffix, that
            is no regular file: `filename` is its path and `strerror` says why.
    """
    roots, seen = [folder], set[object]()
    for root in roots:
        for parent, folders, names in os.walk(root, onerror=refused):
            found = _stat(parent)
            identity = (found.st_dev, found.st_ino) if found else parent
            if identity in seen:
                folders.clear()
                continue
            seen.add(identity)
            # Hidden ones are thumbnails and the `._photo.jpg` of macOS, which are no photos.
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            paths = (os.path.join(parent, name) for name in folders)
            roots += [path for path in paths if os.path.islink(path)]
            for name in sorted(names):
                if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
                    path = os.path.join(parent, name)
                    found = _stat(path)  # where there is nothing, reading it says so
                    kind = odd_kind(found.st_mode) if found else ""
                    if kind:
                        refused(OSError(errno.EINVAL, f"{kind}, not a regular file", path))
                    else:
                        yield path


def open_image(file: IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image in `file` with its header read and its pixels not yet decoded.

    Args:
        file: opened for bytes; read from its start if it can seek, else from where it is.
        name: the input's name for messages.
        max_pixels: what an image may have; of a pipe, no more is read than such an image can take.

    Raises:
        ImageError: empty, or of no format in `FORMATS`.
    """
    head, piped = _head(file, name)
    coded = header.coded_image(head)
    if piped:
        # Asked first: what is no image, such as /dev/zero, need not end.
        if not coded and not any(_accepts(kind, head) for kind in FORMATS):
            raise ImageError(f"{name}: {_reason(head, coded, '')}")
        file = _whole(file, head, name, max_pixels)
    if coded == "HEIC":
        _refuse_long(file, name, coded, max_pixels)
        return _open_heic(file, name)
    broken = ""
    for kind in [coded] if coded else FORMATS:
        accepted = _accepts(kind, head) if not coded else _plugin(kind) is not None
        if accepted is not True:
            broken = accepted or broken
            continue
        if kind in WHOLE:
            _refuse_long(file, name, kind, max_pixels)
        try:
            return _open(kind, file, name, max_pixels)
        except Image.DecompressionBombError:
            # WebP and GIF ask Pillow's own limit, twice 89 megapixels, once more.
            raise ImageError(f"{name}: more pixels than Pillow accepts; scale it down") from None
        except HeaderTooLongError:
            raise ImageError(
                f"{name}: more than {MAX_HEADER >> 20} MB before the pixels; export it again"
                " without comments and previews"
            ) from None
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # a header that starts well and then breaks
            broken = f"a damaged {kind} header: {error}"
    raise ImageError(f"{name}: {_reason(head, coded, broken)}")


def _reason(head: bytes, coded: str, broken: str) -> str:
    known = "" if coded else header.foreign(head)
    if known:
        return known
    if broken:
        return f"{broken}; copy or export it again"
    if coded:
        return f"an {coded} image, which this Pillow cannot read; run pip install --upgrade Pillow"
    return f"not an image, despite its name; nanocap reads {', '.join(FORMATS)}"


def _plugin(kind: str) -> tuple[Callable[..., Any], Callable[[bytes], bool | str] | None] | None:
    try:
        importlib.import_module(f"PIL.{FORMATS[kind]}")
        return Image.OPEN[kind]
    except (ImportError, KeyError):  # this Pillow was built without it
        return None


def _accepts(kind: str, head: bytes) -> bool | str:
    """Whether a format's plugin takes a file that begins so; if it would but cannot, why."""
    plugin = _plugin(kind)
    if plugin is None:
        return False
    return plugin[1](head[:16]) if plugin[1] else True


def _open(kind: str, file: IO[bytes], name: str, max_pixels: int) -> Image.Image:
    factory = Image.OPEN[kind][0]
    if kind in WHOLE:
        file.seek(0)
        return cast(Image.Image, factory(file, ""))
    if kind == "TIFF":
        _check_directory(file, name)
    if kind == "ICO":
        inside = _open_icon(file, name, max_pixels)
        if inside is not None:
            return inside
    file.seek(0)
    plain = PlainPng(file) if kind == "PNG" else None
    metered = MeteredFile(plain or file)
    image = cast(Image.Image, factory(cast("IO[bytes]", metered), ""))
    metered.free()
    if plain and plain.has_profile:
        image.info["icc_profile"] = plain.profile
    return image


def _check_directory(file: IO[bytes], name: str) -> None:
    directory = tiff.read_directory(file)
    if directory is None:
        return  # Pillow says what is damaged
    if directory.raw:
        raise ImageError(f"{name}: {header.RAW}")
    if directory.parts > tiff.MAX_PARTS or directory.data > MAX_HEADER:
        raise ImageError(
            f"{name}: a TIFF of {directory.parts} parts and {directory.data / 1e6:.0f} MB of tags,"
            " more than any photo; export it again"
        )


def _open_icon(file: IO[bytes], name: str, max_pixels: int) -> Image.Image | None:
    """The PNG in an icon; None where its largest image is a bitmap, of a size that can be."""
    found = header.largest_image(file)
    if found is None:
        return None
    if found.is_png:
        file.seek(found.start)
        data = file.read(min(found.size, MAX_HEADER))
        return open_image(io.BytesIO(data), name, max_pixels)
    if max(found.width, found.height) > ICON_SIDE:
        raise ImageError(
            f"{name}: an icon of {found.width}x{found.height}, larger than any; export it as a PNG"
        )
    return None


def _head(file: IO[bytes], name: str) -> tuple[bytes, bool]:
    """The first bytes of a file, and whether it is a pipe, so that they are read for good."""
    try:
        file.seek(0)
        piped = False
    except (AttributeError, OSError):  # /dev/stdin, <(command), a socket
        piped = True
    head = file.read(header.HEAD)
    if not head:
        raise ImageError(f"{name}: the file is empty; copy or export it again")
    if not isinstance(head, bytes):
        raise ImageError(f"{name}: opened as text; open it as bytes (mode 'rb')")
    return head, piped


def _whole(file: IO[bytes], head: bytes, name: str, max_pixels: int) -> Piped:
    """A pipe with its rest in memory."""
    held, limit = Piped(), memory_limit(max_pixels)
    data = head
    while data:
        held.write(data)
        if held.tell() > limit:
            raise ImageError(f"{name}: more than {limit >> 20} MB from a pipe; use a file")
        data = file.read(BLOCK)
    return held


def _refuse_long(file: IO[bytes], name: str, kind: str, max_pixels: int) -> None:
    """Raise ImageError where a file that is read whole, and copied once, is too long for that."""
    size, limit = file_bytes(file), memory_limit(max_pixels) // 2
    if size > limit:
        raise ImageError(
            f"{name}: {size / 1e6:.0f} MB of {kind}, which are decoded from memory, above the"
            f" {limit / 1e6:.0f} MB that {max_pixels / 1e6:g} megapixels may take; save it as JPEG"
        )


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


def _stat(path: str) -> os.stat_result | None:
    with suppress(OSError):  # a link to nowhere, no right to look, or gone since it was listed
        return os.stat(path)
    return None
