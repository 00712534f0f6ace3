"""The bundle's `manifest.json`: what it says, and that it says it properly."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nanocap.bounds import MAX_BEAMS
from nanocap.bundle.confidence import FEATURES, Confidence
from nanocap.bundle.fields import Fields, parse_object
from nanocap.bundle.vocabulary import Presentation, Vocabulary
from nanocap.errors import BundleError, OptionError
from nanocap.files.whole_file import safe_path
from nanocap.image.rule import RESIZES, ImageRule

SCHEMA = 2
STATE_TYPES = ("float32", "int64", "int32", "bool")
STATE_AXES = ("images", "beams", "rows", "places")
SESSION_ENTRIES = ("session.disable_quant_qdq",)  # others have sessions read and write files
MAX_WEIGHT = 1e6  # of calibration, either way
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
class SearchDefaults:
    """How captions are searched unless the caller says otherwise."""

    beams: int = 3
    length_penalty: float = 1.0
    quality: str = "high"
    length: str = "any"


@dataclass(frozen=True)
class StateTensor:
    """An array of the state that `begin` makes and `step` advances.

    Attributes:
        type: `float32`, `int64`, `int32` or `bool`.
        shape: lengths; `images`, `beams`, `rows`, which is images times beams, or `places`, which
            grows by one a step from none on.
        constant: whether every step leaves it as it is.
    """

    name: str
    type: str
    shape: tuple[int | str, ...]
    constant: bool = False

    @property
    def image_axis(self) -> int | None:
        """The axis along which one image lies behind the other."""
        return next((i for i, size in enumerate(self.shape) if size in ("images", "rows")), None)


@dataclass(frozen=True)
class Artifact:
    """The model in one form: for one backend, at one precision.

    Attributes:
        files: role, such as `begin`, to path in the bundle.
        beams: the fewest and the most that it searches with.
        state: what goes from one step to the next.
        session: entries of ONNX Runtime's session configuration that it needs.
    """

    name: str
    backend: str
    precision: str
    visual_tokens: int
    files: Mapping[str, str]
    beams: tuple[int, int] = (1, MAX_BEAMS)
    state: tuple[StateTensor, ...] = ()
    session: Mapping[str, str] = field(default_factory=dict)
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
    vocabulary: Vocabulary
    presentation: Presentation
    search: SearchDefaults
    artifacts: tuple[Artifact, ...]
    golden: Golden
    confidence: Confidence | None = None  # of a bundle that was calibrated
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
        if self.confidence is None:
            del values["confidence"]
        values["image"] |= {"resize": RESIZES[self.image.resample]}
        values["vocabulary"]["special"] = sorted(self.vocabulary.special)
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
        presentation = top.inner("presentation")
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
            vocabulary=_vocabulary(top.inner("vocabulary"), sizes.vocabulary),
            presentation=Presentation(
                capital=presentation.truth("capital"),
                stop=presentation.text("stop"),
                ends=presentation.texts("ends"),
            ),
            search=_search(top.inner("search")),
            artifacts=tuple(_artifact(entry) for entry in top.objects("artifacts")),
            golden=Golden(**{k: top.inner("golden").text(k) for k in Golden.__annotations__}),
            confidence=_confidence(top.inner("confidence")) if "confidence" in top.values else None,
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
            default, known = getattr(self.search, kind), getattr(self.controls, kind)
            need(default in known, f"search: {kind} {default!r} is not among the controls")
        ids = [*asdict(self.tokens).values()]
        ids += [*self.controls.quality.values(), *self.controls.length.values()]
        need(len(set(ids)) == len(ids), "tokens and controls share an id")
        if not files:
            return
        needed = {self.golden.image}
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
        rule = ImageRule(
            size=entry.whole("size", 1, 4096),
            fit=entry.text("fit"),
            resample=entry.text("resample"),
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            exif=entry.text("exif"),
        )
    except OptionError as error:
        raise BundleError(f"{entry.where}: {error}; get or build the bundle again") from None
    if entry.values.get("resize") != RESIZES[rule.resample]:
        entry.fail("resize", f"that of {rule.resample}, as this version of nanocap does it")
    return rule


def _vocabulary(entry: Fields, size: int) -> Vocabulary:
    pieces, special = entry.texts("pieces", empty=True), entry.values.get("special")
    if len(pieces) != size or not any(pieces):
        entry.fail("pieces", f"a list of {size} texts")
    if not isinstance(special, list) or not all(type(i) is int and 0 <= i < size for i in special):
        entry.fail("special", "a list of ids")
    return Vocabulary(pieces, frozenset(special))


def _tokens(entry: Fields, vocabulary: int) -> TokenIds:
    return TokenIds(**{k: entry.whole(k, 0, vocabulary - 1) for k in TokenIds.__annotations__})


def _ids(entry: Fields, key: str, vocabulary: int) -> dict[str, int]:
    names = entry.inner(key)
    return {name: names.whole(name, 0, vocabulary - 1) for name in names.values}


def _search(entry: Fields) -> SearchDefaults:
    return SearchDefaults(
        beams=entry.whole("beams", 1, MAX_BEAMS),
        length_penalty=entry.number("length_penalty", 0.0, 10.0),
        quality=entry.text("quality"),
        length=entry.text("length"),
    )


def _confidence(entry: Fields) -> Confidence:
    weights = entry.inner("weights")
    unknown = sorted(set(weights.values) - set(FEATURES))
    if unknown:
        raise BundleError(
            f"{weights.where}: {unknown[0]!r} is nothing that this version of nanocap knows of a"
            f" caption; known are {', '.join(FEATURES)}"
        )
    return Confidence(
        intercept=entry.number("intercept", -MAX_WEIGHT, MAX_WEIGHT),
        weights={key: weights.number(key, -MAX_WEIGHT, MAX_WEIGHT) for key in weights.values},
        plain=entry.texts("plain"),
        photos=entry.whole("photos", 1, 1_000_000_000),
    )


def _artifact(entry: Fields) -> Artifact:
    files = entry.inner("files")
    backend = entry.text("backend")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", backend):  # it names a module of runtime/engines
        entry.fail("backend", "a plain lower-case word")
    session = entry.inner("session")
    if not set(session.values) <= set(SESSION_ENTRIES):
        entry.fail("session", f"of no other entries than {', '.join(SESSION_ENTRIES)}")
    least = entry.wholes("beams", 2, 1, MAX_BEAMS)[0]
    return Artifact(
        name=entry.text("name"),
        backend=backend,
        precision=entry.text("precision"),
        visual_tokens=entry.whole("visual_tokens", 1, 100_000),
        files={role: safe_path(files.text(role), files.where) for role in files.values},
        beams=(least, entry.wholes("beams", 2, least, MAX_BEAMS)[1]),
        state=tuple(_state_tensor(each) for each in entry.objects("state")),
        session={key: session.text(key) for key in session.values},
        measured=dict(entry.inner("measured").values) if "measured" in entry.values else {},
    )


def _state_tensor(entry: Fields) -> StateTensor:
    kind, shape = entry.text("type"), entry.values.get("shape")
    if kind not in STATE_TYPES:
        entry.fail("type", f"one of {', '.join(STATE_TYPES)}")
    if not isinstance(shape, list) or not all(
        size in STATE_AXES if isinstance(size, str) else type(size) is int and size > 0
        for size in shape
    ):
        entry.fail("shape", f"a list of whole numbers and {', '.join(STATE_AXES)}")
    return StateTensor(entry.text("name"), kind, tuple(shape), entry.truth("constant"))


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
