"""The bundle's `manifest.json`: what it says, and that it says it properly."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nanocap.bundle.fields import Fields, parse_object
from nanocap.errors import BundleError, OptionError
from nanocap.image.rule import ImageRule

SCHEMA = 1
MAX_FILES = 1000
MAX_FILE_BYTES = 1 << 30  # 1 GiB, of one file and of a whole bundle


@dataclass(frozen=True)
class Dimensions:
    """The sizes that decoding needs; the manifest's other dimensions are the student's affair."""

    vocabulary: int
    max_tokens: int  # positions of the decoder, control tokens and end included
    layers: int  # of the decoder
    width: int  # channels of a token
    cache_width: int  # channels of a key or value of the text; less than `width` where pruned
    cross_width: int  # the same of the photo


@dataclass(frozen=True)
class TokenIds:
    """Ids that are not text."""

    pad: int
    end: int
    unknown: int


@dataclass(frozen=True)
class Controls:
    """Ids of the control tokens, by name, in the order they are fed: quality, then length."""

    quality: Mapping[str, int]
    length: Mapping[str, int]


@dataclass(frozen=True)
class DecodingDefaults:
    """How captions are searched unless the caller says otherwise."""

    beams: int = 3
    length_penalty: float = 1.0
    quality: str = "high"
    length: str = "any"


@dataclass(frozen=True)
class Artifact:
    """The model in one form: for one backend, at one precision."""

    name: str
    backend: str
    precision: str
    visual_tokens: int
    files: Mapping[str, str]  # role, such as `encoder`, to path in the bundle
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FileRecord:
    """What a file of the bundle must be: its size in bytes and its SHA-256 in lower-case hex."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Golden:
    """An image of the bundle and the caption that `artifact` gives it with the defaults."""

    image: str
    artifact: str
    caption: str


@dataclass(frozen=True)
class Manifest:
    """All of `manifest.json`. `files` may be left empty for `write_bundle`, which fills it."""

    name: str
    version: str
    dimensions: Mapping[str, Any]
    image: ImageRule
    tokens: TokenIds
    controls: Controls
    decoding: DecodingDefaults
    artifacts: tuple[Artifact, ...]
    golden: Golden
    training: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def sizes(self) -> Dimensions:
        """The dimensions that decoding needs."""
        return _sizes(Fields(self.dimensions, "manifest.json: dimensions"))

    def to_json(self) -> bytes:
        """The file's bytes: indented, keys in the order of the fields, a line end at the end."""
        values = {"schema": self.schema, **asdict(self)}
        return (json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, where: str = "manifest.json") -> Manifest:
        """The manifest in `data`.

        Raises:
            BundleError: one line: which entry, what it must be, what was found.
        """
        top = parse_object(data, where)
        if top.values.get("schema") != SCHEMA:
            top.fail("schema", f"{SCHEMA} for this version of nanocap")
        sizes = _sizes(top.inner("dimensions"))
        manifest = cls(
            name=top.text("name"),
            version=top.text("version"),
            dimensions=dict(top.inner("dimensions").values),
            image=_image(top.inner("image")),
            tokens=_tokens(top.inner("tokens"), sizes.vocabulary),
            controls=Controls(
                quality=_ids(top.inner("controls"), "quality", sizes.vocabulary),
                length=_ids(top.inner("controls"), "length", sizes.vocabulary),
            ),
            decoding=_decoding(top.inner("decoding")),
            artifacts=tuple(_artifact(entry) for entry in top.objects("artifacts")),
            golden=Golden(**{k: top.inner("golden").text(k) for k in Golden.__annotations__}),
            training=dict(top.inner("training").values) if "training" in top.values else {},
            files=_files(top.inner("files")),
        )
        manifest.check(where)
        return manifest

    def check(self, where: str = "manifest.json", *, files: bool = True) -> None:
        """That the parts agree with each other; `files=False` while no file is recorded yet.

        Raises:
            BundleError: they do not.
        """

        def need(holds: bool, message: str) -> None:
            if not holds:
                raise BundleError(f"{where}: {message}; get or build the bundle again")

        names = [artifact.name for artifact in self.artifacts]
        need(bool(names), "artifacts is empty")
        need(len(set(names)) == len(names), "two artifacts have one name")
        need(self.golden.artifact in names, f"golden names no artifact: {self.golden.artifact}")
        for kind in ("quality", "length"):
            default, known = getattr(self.decoding, kind), getattr(self.controls, kind)
            need(default in known, f"decoding: {kind} {default!r} is not among the controls")
        ids = [*asdict(self.tokens).values()]
        ids += [*self.controls.quality.values(), *self.controls.length.values()]
        need(len(set(ids)) == len(ids), "tokens and controls share an id")
        if not files:
            return
        needed = {"tokenizer.json", self.golden.image}
        needed.update(path for artifact in self.artifacts for path in artifact.files.values())
        missing = sorted(needed - set(self.files))
        need(not missing, f"files has no entry for {', '.join(missing[:3])}")


def never_generated(
    tokens: TokenIds, controls: Controls, special: Collection[int]
) -> tuple[int, ...]:
    """The ids that no caption holds: padding, unknown, controls, other special pieces, not the end.

    Args:
        special: the vocabulary's pieces that are no text; see `Vocabulary.special`.
    """
    never = {tokens.pad, tokens.unknown, *controls.quality.values(), *controls.length.values()}
    return tuple(sorted((never | set(special)) - {tokens.end}))


def safe_path(path: str, where: str = "manifest.json") -> str:
    """`path` if it is relative, POSIX, plain and stays inside; else BundleError."""
    parts = path.split("/")
    unsafe = (
        any(part in ("", ".", "..") or part != part.strip() for part in parts)
        or any(c in '\\:*?"<>|' or not c.isprintable() for c in path)  # also drives and streams
        or len(path) > 200
    )
    if unsafe:
        raise BundleError(
            f"{where}: the path {path[:80]!r} leaves the bundle or is not a plain relative path;"
            " do not use this bundle, get it again from its origin"
        )
    return path


def _sizes(entry: Fields) -> Dimensions:
    width = entry.whole("width", 1, 16384)

    def inner(key: str) -> int:  # only a pruned student says it
        return entry.whole(key, 1, 16384) if key in entry.values else width

    return Dimensions(
        vocabulary=entry.whole("vocabulary", 4, 1_000_000),
        max_tokens=entry.whole("max_tokens", 4, 4096),
        layers=entry.whole("layers", 1, 256),
        width=width,
        cache_width=inner("cache_width"),
        cross_width=inner("cross_width"),
    )


def _image(entry: Fields) -> ImageRule:
    mean, std = entry.numbers("mean", 3), entry.numbers("std", 3)
    try:
        return ImageRule(
            size=entry.whole("size", 1, 4096),
            fit=entry.text("fit"),
            resample=entry.text("resample"),
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            exif=entry.text("exif"),
        )
    except OptionError as error:
        raise BundleError(f"{entry.where}: {error}; get or build the bundle again") from None


def _tokens(entry: Fields, vocabulary: int) -> TokenIds:
    return TokenIds(**{k: entry.whole(k, 0, vocabulary - 1) for k in TokenIds.__annotations__})


def _ids(entry: Fields, key: str, vocabulary: int) -> dict[str, int]:
    names = entry.inner(key)
    return {name: names.whole(name, 0, vocabulary - 1) for name in names.values}


def _decoding(entry: Fields) -> DecodingDefaults:
    return DecodingDefaults(
        beams=entry.whole("beams", 1, 64),
        length_penalty=entry.number("length_penalty", 0.0, 10.0),
        quality=entry.text("quality"),
        length=entry.text("length"),
    )


def _artifact(entry: Fields) -> Artifact:
    files = entry.inner("files")
    backend = entry.text("backend")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", backend):  # it names a module of runtime/engines
        entry.fail("backend", "a plain lower-case word")
    return Artifact(
        name=entry.text("name"),
        backend=backend,
        precision=entry.text("precision"),
        visual_tokens=entry.whole("visual_tokens", 1, 100_000),
        files={role: safe_path(files.text(role), files.where) for role in files.values},
        measured=dict(entry.inner("measured").values) if "measured" in entry.values else {},
    )


def _files(entry: Fields) -> dict[str, FileRecord]:
    if len(entry.values) > MAX_FILES:
        raise BundleError(f"{entry.where}: more than {MAX_FILES} entries; get the bundle again")
    records = {}
    for path in entry.values:
        record = entry.inner(safe_path(path, entry.where))
        if not re.fullmatch(r"[0-9a-f]{64}", record.text("sha256")):
            record.fail("sha256", "64 lower-case hexadecimal digits")
        size = record.whole("bytes", 0, MAX_FILE_BYTES)
        records[path] = FileRecord(bytes=size, sha256=record.text("sha256"))
    if "manifest.json" in records:
        raise BundleError(f"{entry.where}: manifest.json cannot list itself; build it again")
    if sum(record.bytes for record in records.values()) > MAX_FILE_BYTES:
        raise BundleError(f"{entry.where}: above {MAX_FILE_BYTES >> 20} MB in all; use another")
    return records
