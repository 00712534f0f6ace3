"""The whole bench: from a bundle's path to a report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nanocap.bundle import Bundle
from nanocap.bundle.manifest import Artifact, Manifest
from nanocap.errors import EngineError, MissingExtraError, OptionError
from nanocap.image.image import load_image
from nanocap.measure.bench.counts import Counts, count
from nanocap.measure.bench.machine import describe_machine
from nanocap.measure.bench.memory import caption_peak_bytes
from nanocap.measure.bench.options import Options
from nanocap.measure.bench.peaks import PeakTasks
from nanocap.measure.bench.photos import Photo, draw_photo, read_photo
from nanocap.measure.bench.profile import profile
from nanocap.measure.bench.results import (
    CaptionResult,
    PhotoResult,
    Report,
    RunResult,
    StageResult,
)
from nanocap.measure.bench.roofline import Peaks, Roofline
from nanocap.measure.bench.stages import BATCH, CAPTION, LOAD, Key, Setup
from nanocap.measure.bench.timing import Task, Timing, interleave

ONNX = "onnx"  # the backend whose graphs can be counted and profiled
Timings = Mapping[Key, Timing]


def bench(options: Options, tell: Callable[[str], None]) -> Report:
    """Measure everything in turns. Takes half a minute to minutes, `options.QUICK` some seconds.

    Args:
        tell: is called with a line of progress now and then.

    Raises:
        BundleError: the bundle is missing, altered or unsafe.
        OptionError: it has no such artifact.
        ImageError: the photo cannot be read.
        MissingExtraError: `onnx` is not installed.
        EngineError: none of the artifacts runs here.
    """
    bundle, scale = Bundle(options.bundle), options.scale
    manifest = bundle.manifest
    artifacts = _choose(manifest, options.artifacts)
    machine = describe_machine()  # its load is that before our own
    peak_tasks = PeakTasks(scale.side, scale.block_bytes)  # first: it may miss a package
    tell("preparing the photos")
    decoded, captioned = _photos(options)
    tell("loading, and counting the graphs")
    setups, failures = _load(bundle, artifacts, options.threads, captioned)
    # the same whatever the threads
    counts = {s.artifact.name: _counts(s) for s in setups if s.threads == options.threads[0]}

    tasks = [_decode(photo, manifest) for photo in decoded]
    for threads in options.threads:
        runs = peak_tasks.runs(threads)
        calls = scale.effort.peaks
        tasks += [Task(Key(kind, threads), run, calls) for kind, run in runs.items()]
    for setup in setups:
        tasks += setup.tasks(scale.effort)
    timings = interleave(tasks, scale.rounds, after_round=_rounds(scale.rounds, tell))

    peaks = {
        n: peak_tasks.peaks(n, {k.what: t for k, t in timings.items() if k == Key(k.what, n)})
        for n in options.threads
    }
    results = []
    with tempfile.TemporaryDirectory() as folder:
        path = options.photo or Path(folder) / "photo.jpg"
        if options.photo is None:
            path.write_bytes(decoded[0].data)
        for setup in setups:
            name, threads = setup.artifact.name, setup.threads
            tell(f"peak memory and profile of {name}, threads: {threads}")
            stages = _stages(setup, timings, counts[name], peaks[threads], scale.profiled)
            captions = tuple(
                CaptionResult(k, timings[setup.key(CAPTION, k)], setup.tokens(k))
                for k in setup.beams
            )
            batch = scale.effort.batch
            results.append(
                RunResult(
                    artifact=name,
                    threads=threads,
                    load=timings[setup.key(LOAD)],
                    stages=stages,
                    captions=captions,
                    batch=batch,
                    captions_per_second=1000 * batch / timings[setup.key(BATCH)].p50,
                    peak_bytes=caption_peak_bytes(options.bundle, name, threads, path),
                )
            )
    return Report(
        bundle=str(options.bundle),
        name=manifest.name,
        version=manifest.version,
        bytes=sum(record.bytes for record in manifest.files.values()),
        machine=machine,
        rounds=scale.rounds,
        photos=tuple(
            PhotoResult(p.name, p.width, p.height, len(p.data), timings[Key(p.name)])
            for p in decoded
        ),
        peaks=tuple(peaks.values()),
        artifact_bytes={
            a.name: sum(manifest.files[path].bytes for path in set(a.files.values()))
            for a in artifacts
        },
        runs=tuple(results),
        failures=failures,
    )


def _choose(manifest: Manifest, names: Sequence[str]) -> list[Artifact]:
    known = {artifact.name: artifact for artifact in manifest.artifacts}
    for name in names:
        if name not in known:
            raise OptionError(f"{manifest.name}: has no artifact {name}; it has {', '.join(known)}")
    return [known[name] for name in names or known]


def _photos(options: Options) -> tuple[list[Photo], list[Photo]]:
    """The photos to decode, the largest first, and those to caption."""
    if options.photo is not None:
        photo = read_photo(options.photo)
        return [photo], [photo]
    scale = options.scale
    small = [draw_photo(*scale.small, seed=seed) for seed in range(scale.photos)]
    return [draw_photo(*scale.large), small[0]], small


def _decode(photo: Photo, manifest: Manifest) -> Task[Key]:
    return Task(Key(photo.name), lambda: load_image(photo.data, manifest.image))


def _load(
    bundle: Bundle,
    artifacts: Sequence[Artifact],
    threads: Sequence[int],
    photos: Sequence[Photo],
) -> tuple[list[Setup], dict[str, str]]:
    """The artifacts that run here, and why the others do not."""
    setups: list[Setup] = []
    failures: dict[str, str] = {}
    for artifact in artifacts:
        try:
            setups += [Setup(bundle, artifact, count, photos) for count in threads]
        except (EngineError, MissingExtraError) as error:
            if len(artifacts) == 1:
                raise
            failures[artifact.name] = str(error)
    if not setups:
        raise EngineError(f"{bundle.where}: no artifact runs here: {'; '.join(failures.values())}")
    return setups, failures


def _counts(setup: Setup) -> dict[tuple[str, int], Counts]:
    """Counts by stage; none for a backend whose files are no ONNX graphs."""
    if setup.artifact.backend != ONNX:
        return {}
    return {stage: count(*setup.graph(*stage)) for stage in setup.stages}


def _stages(
    setup: Setup,
    timings: Timings,
    counts: Mapping[tuple[str, int], Counts],
    peaks: Peaks,
    profiled: int,
) -> tuple[StageResult, ...]:
    results = []
    for key in setup.stages:
        found = counts.get(key)
        roofline = None if found is None else Roofline.of(found, peaks)
        stage = StageResult(*key, timings[setup.key(*key)], roofline)
        if stage.is_far:
            graph, entries = setup.graph(*key), setup.artifact.session
            operators = profile(*graph, setup.threads, profiled, entries)
            stage = replace(stage, operators=operators)
        results.append(stage)
    return tuple(results)


def _rounds(rounds: int, tell: Callable[[str], None]) -> Callable[[], None]:
    """Called after the warm-up and after each round, tells of every fourth part."""
    done = -1

    def after() -> None:
        nonlocal done
        done += 1
        if done % max(1, rounds // 4) == 0:
            tell(f"round {done} of {rounds}" if done else f"warm; {rounds} rounds follow")

    return after
