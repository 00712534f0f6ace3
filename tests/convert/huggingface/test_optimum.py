"""Optimum runs a folder's ONNX files, and exports them anew, with the runtime's captions.

Run by `make test-optimum`, in an environment of its own: Optimum holds transformers below 4.58.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoImageProcessor, AutoTokenizer

import nanocap.interop  # noqa: F401  # registers
from nanocap.bundle.vocabulary import Presentation

pytestmark = pytest.mark.optimum


def captions_of(model_folder: Path, folder: Path, photos: list[Path], **options: Any) -> list[str]:
    from optimum.onnxruntime import ORTModelForVision2Seq

    model = ORTModelForVision2Seq.from_pretrained(model_folder, **options)
    processor = AutoImageProcessor.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = []
    for photo in photos:
        ids = model.generate(**processor(photo, return_tensors="pt"))
        texts.append(
            Presentation().sentence(tokenizer.decode(ids[0], skip_special_tokens=True).strip())
        )
    return texts


def test_optimum_runs_the_same_files(folder: Path, photos: list[Path], captions: list[str]) -> None:
    assert captions_of(folder, folder, photos) == captions


@pytest.mark.parametrize("task", ["image-to-text", "image-to-text-with-past"])
def test_optimum_exports_the_folder(
    tmp_path: Path, folder: Path, photos: list[Path], captions: list[str], task: str
) -> None:
    command = [str(Path(sys.executable).with_name("optimum-cli")), "export", "onnx"]
    command += ["--model", str(folder), "--task", task, "--trust-remote-code"]
    # Optimum traces 16 pieces after 16 others unless told: more than the tiny model has places for
    command += ["--sequence_length", "4", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cached = task.endswith("with-past")
    assert captions_of(tmp_path, folder, photos, use_cache=cached) == captions
