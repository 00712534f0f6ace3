"""Checkpoint to bundle: export, quantization, parity.

Reading order: `graphs` (what is exported, and how its graph is cleaned), `exporters` (one file a
backend), `quantization` (what ONNX makes of a graph in each precision), `onnx`, `coreml` and
`executorch` (what those backends need, and their exporters), `parity` (the comparison with eager),
`build` (the bundle), `parity_report` (what each artifact of a bundle lost). Beside them,
`huggingface`: a folder for Hugging Face's libraries.
"""

from __future__ import annotations

import nanocap.threads  # noqa: F401  # before torch
from nanocap.errors import MissingExtraError

try:
    import onnx  # noqa: F401
    import onnxscript  # noqa: F401
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtraError("nanocap.convert", "convert", error.name) from error
