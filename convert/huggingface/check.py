"""That what is in a folder captions as the student does, token for token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nanocap.convert.checkpoint import Checkpoint
from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.sessions import open_session
from nanocap.convert.huggingface.graphs import resize_model
from nanocap.convert.parity import EagerEngine
from nanocap.convert.photos import drawn_pictures
from nanocap.convert.probe import Probe, batches
from nanocap.image.image import load_image

Ids = list[list[int]]


def greedy_ids(checkpoint: Checkpoint, probe: Probe, pixels: npt.NDArray[np.uint8]) -> Ids:
    """What greedy search finds in a batch of photos, prompt and end included.

    These libraries have no rule against repeated words, so it goes without.
    """
    engine = EagerEngine(checkpoint.student, checkpoint.search(repeats=True))
    state = probe.begin(engine, pixels)
    while state["going"].any():
        state = engine.step(state)
    pad, prompt = checkpoint.tokens().pad, [probe.quality, probe.length]
    return [[*prompt, *(i for i in row if i != pad)] for row in state["answer_ids"][:, 0].tolist()]


def check_transformers(folder: Path, checkpoint: Checkpoint, probe: Probe) -> None:
    """That transformers loads the folder whole and generates what the runtime would.

    Raises:
        ConversionError: it does not.
    """
    from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel

    model, loaded = VisionEncoderDecoderModel.from_pretrained(folder, output_loading_info=True)
    wrong = {kind: sorted(names)[:3] for kind, names in loaded.items() if names}
    if wrong:
        raise ConversionError(f"transformers does not load the weights whole: {wrong}")
    processor = AutoImageProcessor.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = checkpoint.vocabulary()
    for pixels in batches(probe.pixels):
        inputs = processor(list(pixels), return_tensors="pt")
        generated = model.generate(**inputs).tolist()
        for ids, row in zip(greedy_ids(checkpoint, probe, pixels), generated, strict=True):
            _compare(ids, row[: len(ids)], "transformers")
            text = tokenizer.decode(ids, skip_special_tokens=True)
            if text.strip() != vocabulary.text(ids):
                raise ConversionError(
                    f"transformers reads a caption as {text!r}, not {vocabulary.text(ids)!r}"
                )


def check_graphs(encoder: bytes, decoder: bytes, checkpoint: Checkpoint, probe: Probe) -> None:
    """The same of the two ONNX graphs, and that the first resizes as `nanocap.image.image` does.

    Raises:
        ConversionError: it is not so.
    """
    encode, decode = open_session(encoder), open_session(decoder)
    rule = checkpoint.rule()
    large = drawn_pictures(1, 3 * rule.size)[:, : 2 * rule.size]
    resize = open_session(resize_model(rule.size).SerializeToString())
    (resized,) = resize.run(None, {"pixel_values": _floats(large)})
    apart = np.abs(resized[0].transpose(1, 2, 0).astype(int) - load_image(large[0], rule)).max()
    if apart > 1:
        raise ConversionError(f"the ONNX encoder resizes photos otherwise, by {apart} of 255")
    for pixels in batches(probe.pixels):
        (states,) = encode.run(None, {"pixel_values": _floats(pixels)})
        for row, ids in enumerate(greedy_ids(checkpoint, probe, pixels)):
            found = _greedy(decode, states[row : row + 1], checkpoint, probe)
            _compare(ids, [token for token, _ in zip(found, ids, strict=False)], "onnx")


def _floats(pixels_BHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return pixels_BHWC.transpose(0, 3, 1, 2).astype(np.float32)


def _greedy(
    session: Any, states: npt.NDArray[np.float32], checkpoint: Checkpoint, probe: Probe
) -> Iterator[int]:
    """Ids one by one, prompt included, for one photo; it does not stop at the end."""
    fed = [probe.quality, probe.length]
    yield from fed
    cache = {
        value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
        for value in session.get_inputs()[2:]
    }
    for step in range(checkpoint.student.dimensions.max_tokens - 1):
        inputs = {"input_ids": np.array([fed]), "encoder_hidden_states": states, **cache}
        logits, *present = session.run(None, inputs)
        last = probe.barred(logits[0, -1])
        if step == 0:
            last[checkpoint.tokens().end] = -np.inf  # an empty caption is no answer
        fed = [int(last.argmax())]
        yield fed[0]
        cache = dict(zip(cache, present, strict=True))


def _compare(expected: list[int], found: list[int], where: str) -> None:
    if found != expected:
        raise ConversionError(
            f"{where} captions a photo with {found}, the student with {expected}; do not ship it"
        )
