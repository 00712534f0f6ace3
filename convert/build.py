"""Building a bundle: a checkpoint in, a folder out that captions, whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from nanocap.bundle.card import CARD, model_card
from nanocap.bundle.manifest import Golden, Manifest, SearchDefaults
from nanocap.bundle.precisions import plan
from nanocap.bundle.vocabulary import Presentation
from nanocap.bundle.writer import write_bundle
from nanocap.convert.checkpoint import Checkpoint, read_checkpoint
from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import Exported, Job, load_exporter
from nanocap.convert.graphs.sessions import threads
from nanocap.convert.parity import check_student
from nanocap.convert.photos import drawn_pictures, find_photos, load_photos, spread
from nanocap.convert.quantization.int8 import Int8Options
from nanocap.errors import EngineError, MissingExtraError, OptionError
from nanocap.image.image import load_image
from nanocap.runtime.captioner import Captioner

CALIBRATION_PHOTOS = 128
PROBE_PHOTOS = 16
GOLDEN = "golden.png"
PACKAGE = ".mlpackage/"


def build_bundle(
    source: str | os.PathLike[str] | Checkpoint,
    out: str | os.PathLike[str],
    *,
    precisions: Sequence[str] = (),
    backends: Sequence[str] = ("onnx",),
    tokens: Sequence[int] = (),
    photos: Sequence[str | os.PathLike[str]] = (),
    golden: str | os.PathLike[str] | None = None,
    name: str | None = None,
    version: str = "1.0.0",
    search: SearchDefaults | None = None,
    int8: Int8Options | None = None,
    qdq: bool = False,
    calibration_photos: int = CALIBRATION_PHOTOS,
    probe_photos: int = PROBE_PHOTOS,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda line: None,
    count: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the bundle folder `out` from a checkpoint.

    Every artifact is loaded, run and compared before anything is written, and the golden caption
    is what the runtime says with the bundle itself.

    Args:
        source: `student.safetensors` of a run, or a `Checkpoint` made from a student at hand.
        precisions: one artifact each, `int4` for every backend or `onnx:int4` for one; default:
            the first that a backend has. The first artifact is the one that runs by default.
        backends: exporters' names.
        tokens: numbers of visual tokens, an encoder each over the same decoder; default: the
            student's own. Others than it was trained with cost quality.
        photos: files, folders and tar shards for calibration and comparison. Needed for int8, int4.
        golden: a photo that goes into the bundle (mind its licence); default: a drawn picture.
        name: default: the recipe's name, else `student`.
        search: defaults at run time.
        int8: how to quantize for ONNX; default: as measurement finds best.
        qdq: leave int8 of ONNX in Q/DQ pairs, as execution providers other than the CPU's take it.
        calibration_photos, probe_photos: at most so many of `photos` are used.
        overwrite: replace a bundle that is there.
        report: takes lines of progress.
        count: takes how many steps of a long part are done, and of how many.

    Returns:
        `out` as a Path.

    Raises:
        ConversionError: the checkpoint cannot be converted, or an artifact disagrees with it.
        OptionError: `out` already exists, or there is no such backend or precision.
        ImageError: the golden photo cannot be read.
    """
    if Path(out).exists() and not overwrite:  # before minutes of work
        raise OptionError(f"{out}: already exists; choose another name or allow overwriting")
    wanted = plan(backends, precisions)
    exporters = {backend: load_exporter(backend) for backend in wanted}
    if len(set(tokens)) < len(tokens):
        raise OptionError(f"name each number of tokens once, not {list(tokens)}")
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    search = search or SearchDefaults()
    picture = _golden(checkpoint, golden)
    calibration, probe = _photos(checkpoint, photos, calibration_photos, probe_photos)
    job = Job(
        checkpoint.probe(probe, search),
        checkpoint.search(),
        calibration,
        int8 or Int8Options(),
        ids=checkpoint.ids(),
        tokens=tuple(tokens),
        beams=search.beams,
        qdq=qdq,
        report=report,
        count=count,
    )
    report("checking that the student is ready for it")
    check_student(checkpoint.student, job.search, job.probe, checkpoint.where)
    exported = _shared(
        each
        for backend, exporter in exporters.items()
        for each in exporter.export(checkpoint.student, wanted[backend], job)
    )
    artifacts = tuple(each.artifact for each in exported)
    manifest = Manifest(
        name=name or str(checkpoint.training.get("recipe", "student")),
        version=version,
        dimensions=checkpoint.dimensions(),
        image=checkpoint.rule(),
        tokens=checkpoint.tokens(),
        controls=checkpoint.controls(),
        vocabulary=checkpoint.vocabulary(),
        presentation=Presentation(),
        search=search,
        artifacts=artifacts,
        golden=Golden(GOLDEN, artifacts[0].name, "not yet captioned"),
        training=dict(checkpoint.training),
    )
    report("bundle: captioning the golden image with it")
    files = _files(exported, picture)
    manifest = replace(manifest, golden=golden_caption(manifest, files))
    files[CARD] = model_card(manifest, sum(map(len, files.values()))).encode()
    return write_bundle(out, manifest, files, overwrite=overwrite)


def _photos(
    checkpoint: Checkpoint, sources: Sequence[str | os.PathLike[str]], calibrate: int, probe: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Pixels to calibrate on and others to compare on; drawn ones where there are no photos."""
    rule = checkpoint.rule()
    found = find_photos(sources)
    if sources and not found:
        raise ConversionError(f"no photos in {', '.join(map(str, sources))}; name others")
    chosen = spread(found, calibrate)
    calibration = load_photos(chosen, calibrate, rule)
    others = load_photos(found, probe, rule, skip=chosen)
    if not len(others):  # few photos, or none: what was calibrated on serves for comparing too
        others = calibration[:probe] if len(calibration) else drawn_pictures(probe, rule.size)
    return calibration, others


def _golden(checkpoint: Checkpoint, photo: str | os.PathLike[str] | None) -> bytes:
    rule = checkpoint.rule()
    pixels = drawn_pictures(1, rule.size)[0] if photo is None else load_image(photo, rule)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _shared(exported: Iterable[Exported]) -> list[Exported]:
    """The same artifacts; of files with the same bytes, the path of the first stands for all.

    A package, a folder that another program opens, is shared as a whole or not at all.
    """
    firsts: dict[tuple[tuple[str, bytes], ...], str] = {}
    shared = []
    for each in exported:
        units: dict[str, dict[str, bytes]] = {}
        for path, data in each.files.items():
            package, suffix, _ = path.rpartition(PACKAGE)
            unit = package + suffix or path
            units.setdefault(unit, {})[path.removeprefix(unit)] = data
        first, kept = {}, {}
        for unit, inside in units.items():
            stands = firsts.setdefault(tuple(sorted(inside.items())), unit)
            for rest, data in inside.items():
                first[unit + rest] = stands + rest
                if stands == unit:
                    kept[unit + rest] = data
        files = {role: first[path] for role, path in each.artifact.files.items()}
        shared.append(Exported(replace(each.artifact, files=files), kept))
    return shared


def _files(exported: Sequence[Exported], golden: bytes) -> dict[str, bytes]:
    files = {GOLDEN: golden}
    for each in exported:
        files.update(each.files)
    return files


def golden_caption(manifest: Manifest, files: Mapping[str, bytes]) -> Golden:
    """The golden entry: what the first artifact that runs on this machine says of the image.

    Raises:
        ConversionError: none of them runs here, or the student says nothing.
    """
    refused = ""
    with tempfile.TemporaryDirectory() as folder:
        draft = write_bundle(Path(folder) / "draft", manifest, files)
        for artifact in manifest.artifacts:
            try:
                captioner = Captioner(draft, artifact=artifact.name, threads=threads())
            except (EngineError, MissingExtraError) as error:  # made here, run elsewhere
                refused = str(error)
                continue
            text = captioner(files[manifest.golden.image]).text
            if not text:
                raise ConversionError(
                    "the student gives an empty caption for the golden image; train it first"
                )
            return replace(manifest.golden, artifact=artifact.name, caption=text)
    raise ConversionError(
        f"no artifact runs on this machine to caption the golden image, convert to onnx as well"
        f" ({refused})"
    )
