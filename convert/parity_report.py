"""The parity report: what each artifact of a bundle lost, beside its fp32, and what it gained.

Every artifact that runs here captions the same photos, greedily step by step beside the reference
(how far the logits are apart, where a caption first differs) and with the bundle's own search
(CIDEr, and its difference pair by pair). Times are taken in turns, in one run.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nanocap.bundle import Bundle
from nanocap.bundle.manifest import Artifact, Manifest, never_generated
from nanocap.caption import Caption
from nanocap.convert.parity import Divergence, Parity, compare
from nanocap.convert.photos import spread
from nanocap.convert.probe import Probe
from nanocap.errors import EngineError, ImageError, MissingExtraError, OptionError
from nanocap.image.image import load_image
from nanocap.measure.bench.machine import Machine, describe_machine
from nanocap.measure.bench.memory import caption_peak_bytes
from nanocap.measure.bench.timing import Task, interleave
from nanocap.measure.metrics.measures import Interval, Measure
from nanocap.measure.metrics.reference import Missing, reference_measures
from nanocap.measure.report.cards import Photo
from nanocap.runtime.captioner import Captioner
from nanocap.runtime.engines import Engine, load_engine

Count = Callable[[int, int], None]
EXACT = "fp32"  # the precision that others are compared with
PROBES = 200  # photos that are compared step by step
TIMED, ROUNDS, CALLS = 8, 5, 3  # photos, turns, captions a turn
BATCH = 16
SHOWN = 5  # first differences that are kept

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """One artifact.

    Attributes:
        bytes: of its files, those that it shares with others included.
        parity: None for the reference itself.
        first_differences: `photo, piece 4: dog, here cat`, of some photos.
        cider: with the bundle's search.
        difference: of CIDEr from the reference, on the same photos; None for the reference.
        milliseconds: median of a greedy caption, decoded photo to text.
        peak_bytes: of a process that captions one photo; None where the system does not tell.
    """

    artifact: Artifact
    bytes: int
    parity: Parity | None
    first_differences: tuple[str, ...]
    cider: Interval
    difference: Interval | None
    milliseconds: float
    peak_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the artifact's name."""
        values: dict[str, Any] = {"bytes": self.bytes}
        values["visual_tokens"] = self.artifact.visual_tokens
        if self.parity is not None:
            values |= self.parity.to_dict()
        values["first_differences"] = list(self.first_differences)
        values["cider"] = _rounded(self.cider)
        if self.difference is not None:
            values["cider_difference"] = _rounded(self.difference)
        values["ms"] = round(self.milliseconds, 2)
        values["peak_bytes"] = self.peak_bytes
        return values


@dataclass(frozen=True)
class Report:
    """All artifacts of a bundle that run here.

    Attributes:
        reference: name of the artifact that the others are compared with.
        photos: that CIDEr was measured on; `probes`, that were compared step by step.
        left_out: why, by name of the artifact, or of the photo.
    """

    manifest: Manifest
    machine: Machine
    reference: str
    photos: int
    probes: int
    threads: int
    rows: tuple[Row, ...]
    left_out: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "machine": self.machine.cpu,
            "against": self.reference,
            "photos": self.photos,
            "probes": self.probes,
            "threads": self.threads,
            "artifacts": {row.artifact.name: row.to_dict() for row in self.rows},
            "left_out": dict(self.left_out),
        }


@dataclass(frozen=True)
class _Runner:
    """An artifact that runs here."""

    artifact: Artifact
    captioner: Captioner
    engine: Engine


def report(
    path: str | os.PathLike[str],
    photos: Sequence[Photo],
    *,
    probes: int = PROBES,
    threads: int = 1,
    tell: Callable[[str], None] = lambda line: None,
    count: Count = lambda done, total: None,
) -> Report:
    """Measure every artifact of the bundle at `path`.

    Args:
        photos: with captions of people; those that cannot be read are left out and named.
        probes: so many of them, spread evenly, are compared step by step.
        tell: takes a line of progress.
        count: takes how many photos of a long part are done, and of how many.
    Raises:
        BundleError: the bundle is missing, altered or unsafe.
        OptionError: it has no fp32 artifact, or no photo is left.
        EngineError: its fp32 artifact does not run here.
    """
    bundle = Bundle(path)
    manifest = bundle.manifest
    exact = next((one for one in manifest.artifacts if one.precision == EXACT), None)
    if exact is None:
        raise OptionError(
            f"{path}: has no {EXACT} artifact to compare the others with; convert with --precision"
            f" {EXACT} too"
        )
    tell("decoding the photos")
    seen, pixels, left_out = _decode(photos, manifest, count)
    if not seen:
        raise OptionError(f"{path}: no photo to compare on; name others with --data")
    some = spread(range(len(seen)), probes)
    machine = describe_machine()
    runners, failures = _load(bundle, exact, threads)
    probe = _probe(runners[0].captioner, pixels[list(some)])
    scores = {}
    for runner in runners:
        tell(f"{runner.artifact.name}: captioning {len(seen)} photos")
        scores[runner.artifact.name] = _cider(runner.captioner, seen, pixels, count)
    tell("timing all in turns")
    times = _time(runners, pixels)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo"
        photo.write_bytes(seen[0].image)
        for runner in runners:
            name, first = runner.artifact.name, runner.artifact == exact
            parity = None
            if not first:
                tell(f"{name}: comparing with {exact.name} on {len(some)} photos")
                parity = compare(
                    runners[0].engine, runner.engine, probe, beams=runner.artifact.beams[0]
                )
            rows.append(
                Row(
                    artifact=runner.artifact,
                    bytes=sum(manifest.files[p].bytes for p in set(runner.artifact.files.values())),
                    parity=parity,
                    first_differences=_told(parity, [seen[i].key for i in some], runner.captioner),
                    cider=scores[name].interval(),
                    difference=None if first else scores[name].difference(scores[exact.name]),
                    milliseconds=times[name],
                    peak_bytes=caption_peak_bytes(Path(path), name, threads, photo),
                )
            )
    return Report(
        manifest,
        machine,
        exact.name,
        len(seen),
        len(some),
        threads,
        tuple(rows),
        {**left_out, **failures},
    )


def _decode(
    photos: Sequence[Photo], manifest: Manifest, count: Count
) -> tuple[list[Photo], Pixels, dict[str, str]]:
    """The photos that can be read, their pixels, and why the others cannot."""
    seen, pixels, left_out = [], [], {}
    for done, photo in enumerate(photos, 1):
        count(done, len(photos))
        try:
            pixels.append(load_image(photo.image, manifest.image))
            seen.append(photo)
        except ImageError as error:
            left_out[photo.key] = str(error)
    size = manifest.image.size
    return seen, np.array(pixels, np.uint8).reshape(-1, size, size, 3), left_out


def _load(bundle: Bundle, exact: Artifact, threads: int) -> tuple[list[_Runner], dict[str, str]]:
    """The artifacts that run here, the exact one first, and why the others do not."""
    runners, failures = [], {}
    others = [one for one in bundle.manifest.artifacts if one != exact]
    for artifact in (exact, *others):
        try:
            captioner = Captioner(bundle, artifact=artifact.name, threads=threads)
            engine = load_engine(artifact, bundle.load(artifact), threads)
            runners.append(_Runner(artifact, captioner, engine))
        except (EngineError, MissingExtraError) as error:
            if artifact == exact:
                raise
            failures[artifact.name] = str(error)
    return runners, failures


def _probe(captioner: Captioner, pixels: Pixels) -> Probe:
    manifest = captioner.manifest
    never = never_generated(manifest.tokens, manifest.controls, manifest.vocabulary.special)
    return Probe.of(pixels, manifest.controls, manifest.search, never)


def _cider(captioner: Captioner, photos: Sequence[Photo], pixels: Pixels, count: Count) -> Measure:
    captions: list[Caption] = []
    for first in range(0, len(pixels), BATCH):
        captions += captioner(list(pixels[first : first + BATCH]), batch_size=BATCH)
        count(len(captions), len(pixels))
    texts = {photo.key: one.text for photo, one in zip(photos, captions, strict=True)}
    references = {photo.key: photo.references for photo in photos}
    [measure] = reference_measures(texts, references, ("cider",))
    assert not isinstance(measure, Missing)
    return measure


def _time(runners: Sequence[_Runner], pixels: Pixels) -> dict[str, float]:
    """Median milliseconds of a greedy caption, by artifact, all in turns."""
    some = pixels[:TIMED]

    def task(runner: _Runner, index: int) -> Task[tuple[str, int]]:
        def run() -> object:
            return runner.captioner(some[index], beams=1)

        return Task((runner.artifact.name, index), run, CALLS)

    tasks = [task(runner, index) for index in range(len(some)) for runner in runners]
    timings = interleave(tasks, ROUNDS)
    return {
        runner.artifact.name: float(
            np.median([timings[runner.artifact.name, i].p50 for i in range(len(some))])
        )
        for runner in runners
    }


def _told(parity: Parity | None, keys: Sequence[str], captioner: Captioner) -> tuple[str, ...]:
    pieces = captioner.vocabulary.pieces

    def told(one: Divergence) -> str:
        expected, found = (pieces[i].replace("\u2581", " ") for i in (one.expected, one.found))
        return f"{keys[one.photo]}, piece {one.place}: {expected!r}, here {found!r}"

    return tuple(told(one) for one in parity.divergences[:SHOWN]) if parity is not None else ()


def _rounded(interval: Interval) -> dict[str, float]:
    return {name: round(getattr(interval, name), 2) for name in ("value", "low", "high")}
