"""A folder for Hugging Face's libraries, photos, and what the runtime says of them.

The model is a tiny random one, whose captions are gibberish that the slightest difference changes.
`NANOCAP_CHECKPOINT=student.safetensors` puts a trained one and the sample photos in its place.
"""

from __future__ import annotations

import os
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nanocap import Captioner
from nanocap.convert.build import build_bundle
from nanocap.convert.checkpoint import Checkpoint, read_checkpoint
from nanocap.convert.huggingface.folder import build_folder

CHECKPOINT = os.environ.get("NANOCAP_CHECKPOINT")
SAMPLES = Path(__file__).parents[3] / "samples" / "photos"


@pytest.fixture(scope="session")
def checkpoint(tiny: Any) -> Checkpoint:
    if CHECKPOINT:
        return read_checkpoint(CHECKPOINT)
    # of another seed than elsewhere: this one's captions differ where words may be repeated
    return Checkpoint(tiny.student(seed=0), tiny.tokenizer_json(), tiny.training)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> list[Path]:
    if CHECKPOINT:
        return sorted(SAMPLES.glob("*.jpg"))
    # of the model's own size: no library resizes to the last bit alike, and this one would notice
    folder = tmp_path_factory.mktemp("drawn")
    for index, picture in enumerate(tiny.pixels(6)):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def captions(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint, photos: list[Path]
) -> list[str]:
    """The runtime's greedy captions in fp32, with words repeated: the libraries bar none."""
    bundle = tmp_path_factory.mktemp("runtime") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "search", partialmethod(Checkpoint.search, repeats=True))
        build_bundle(checkpoint, bundle, precisions=["fp32"], probe_photos=2)
    found = Captioner(bundle, threads=1)(photos, beams=1)
    assert len({caption.text for caption in found}) > 1
    return [caption.text for caption in found]


@pytest.fixture(scope="session")
def folder(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint, photos: list[Path]
) -> Path:
    out = tmp_path_factory.mktemp("folders") / "model"
    return build_folder(checkpoint, out, photos=photos, probe_photos=4)
