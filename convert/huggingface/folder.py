"""A checkpoint in, a folder out that transformers, Optimum and transformers.js caption with."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import save

from nanocap.bundle.manifest import SearchDefaults
from nanocap.convert.checkpoint import Checkpoint, read_checkpoint
from nanocap.convert.errors import ConversionError
from nanocap.convert.huggingface.card import folder_card
from nanocap.convert.huggingface.check import check_graphs, check_transformers
from nanocap.convert.huggingface.graphs import decoder_model, encoder_model
from nanocap.convert.huggingface.layout import REGISTER, description_files
from nanocap.convert.huggingface.weights import vision_encoder_decoder
from nanocap.convert.photos import drawn_pictures, find_photos, load_photos
from nanocap.files.whole_file import check_target, write_folder
from nanocap.student.student import count_parameters

PROBE_PHOTOS = 16


def build_folder(
    source: str | os.PathLike[str] | Checkpoint,
    out: str | os.PathLike[str],
    *,
    photos: Sequence[str | os.PathLike[str]] = (),
    search: SearchDefaults | None = None,
    probe_photos: int = PROBE_PHOTOS,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the folder `out` from a checkpoint.

    The weights with transformers, and both graphs with ONNX Runtime, have to caption photos with
    the very ids of the runtime's greedy search before the folder appears.

    Args:
        source: `student.safetensors` of a run, or a `Checkpoint` made from a student at hand.
        photos: files, folders and tar shards to compare on; default: drawn pictures.
        search: which control tokens captions start with; they are searched greedily.
        probe_photos: at most so many of `photos` are used.
        overwrite: replace a folder that this function wrote.
        report: takes lines of progress.

    Returns:
        `out` as a Path.

    Raises:
        ConversionError: the checkpoint cannot be converted, or a library captions otherwise.
        OptionError: `out` already exists.
        MissingExtraError: transformers is not installed.
    """
    import nanocap.interop  # noqa: F401  # now, and not after the work, if it cannot be

    target = check_target(out, REGISTER, "folder of nanocap for transformers", overwrite=overwrite)
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    if checkpoint.student.dimensions.pruned is not None:
        raise ConversionError(
            f"{checkpoint.where}: a pruned student is no GPT-2; write a bundle with --to onnx"
        )
    if checkpoint.student.dimensions.evidence:
        raise ConversionError(
            f"{checkpoint.where}: a student that copies words is no GPT-2; write a bundle with"
            " --to onnx"
        )
    search = search or SearchDefaults()
    probe = checkpoint.probe(_pictures(checkpoint, photos, probe_photos), search)
    descriptions = description_files(checkpoint, search)
    report("transformers: tracing the encoder and the decoder to ONNX")
    encoder, decoder = encoder_model(checkpoint.student), decoder_model(checkpoint.student)
    report(f"transformers: comparing ONNX with eager on {len(probe.pixels)} photos")
    check_graphs(encoder, decoder, checkpoint, probe)
    files = {
        **descriptions,
        "README.md": folder_card(checkpoint, count_parameters(checkpoint.student)).encode(),
        "model.safetensors": save(vision_encoder_decoder(checkpoint.student), {"format": "pt"}),
        # transformers.js looks for these names, Optimum takes them as well
        "onnx/encoder_model.onnx": encoder,
        "onnx/decoder_model_merged.onnx": decoder,
    }
    report(f"transformers: comparing with eager on {len(probe.pixels)} photos")
    with tempfile.TemporaryDirectory() as folder:
        check_transformers(write_folder(Path(folder) / "draft", files.items()), checkpoint, probe)
    return write_folder(target, files.items())


def _pictures(
    checkpoint: Checkpoint, sources: Sequence[str | os.PathLike[str]], most: int
) -> npt.NDArray[np.uint8]:
    rule, found = checkpoint.rule(), find_photos(sources)
    if sources and not found:
        raise ConversionError(f"no photos in {', '.join(map(str, sources))}; name others")
    return load_photos(found, most, rule) if found else drawn_pictures(most, rule.size)
