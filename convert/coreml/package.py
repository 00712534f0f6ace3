"""The three files of an `.mlpackage`, the same bytes for the same program."""

from __future__ import annotations

import json
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from coremltools.proto import Model_pb2

from nanocap.convert.coreml.program import quiet
from nanocap.convert.errors import ConversionError
from nanocap.runtime.engines.coreml import PARTS

MANIFEST, MODEL, WEIGHTS = PARTS.values()
ITEMS = {
    "com.apple.CoreML/model.mlmodel": ("model.mlmodel", "CoreML Model Specification"),
    "com.apple.CoreML/weights": ("weights", "CoreML Model Weights"),
}
DATE = "com.github.apple.coremltools.conversion_date"


def package_files(model: Any) -> dict[str, bytes]:
    """The files of a coremltools MLModel's package, by path in it.

    coremltools draws random identifiers and writes down the day. Here the identifiers come from the
    contents (of two packages that differ, no file may be the same: a bundle keeps it once, and each
    folder is to be whole), and the day, which says nothing about the model, is left out.

    Raises:
        ConversionError: coremltools does not write what it should.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        saved = Path(folder, "model.mlpackage")
        model.save(str(saved))
        try:
            specification, weights = (saved / MODEL).read_bytes(), (saved / WEIGHTS).read_bytes()
        except OSError as error:
            raise ConversionError(f"coremltools wrote no {Path(error.filename).name}") from None
    parsed = read_model(specification)
    parsed.description.metadata.userDefined.pop(DATE, None)
    specification = parsed.SerializeToString(deterministic=True)
    contents = sha256(specification + weights).hexdigest()
    return {MANIFEST: _manifest(contents), MODEL: specification, WEIGHTS: weights}


def read_model(specification: bytes) -> Any:
    """The parsed `model.mlmodel`.

    Raises:
        ConversionError: it cannot be parsed or is no ML program.
    """
    model = Model_pb2.Model()
    try:
        model.ParseFromString(specification)
    except Exception as error:  # protobuf's DecodeError moves between its implementations
        raise ConversionError(f"model.mlmodel cannot be parsed ({error}); convert again") from None
    if model.WhichOneof("Type") != "mlProgram":
        raise ConversionError("model.mlmodel is no ML program; convert again")
    return model


def _manifest(contents: str) -> bytes:
    identifiers = {path: str(uuid5(NAMESPACE_URL, f"{contents}/{path}")) for path in ITEMS}
    entries = {
        identifiers[path]: {
            "author": "com.apple.CoreML",
            "description": description,
            "name": name,
            "path": path,
        }
        for path, (name, description) in ITEMS.items()
    }
    root = identifiers["com.apple.CoreML/model.mlmodel"]
    values = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": root,
    }
    return (json.dumps(values, indent=4, sort_keys=True) + "\n").encode()
