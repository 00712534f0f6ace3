"""Checkpoint to bundle: export, quantization, parity.

Reading order: `graphs` (what is exported), `tidy` (how its graph is cleaned), `exporters` (one file
a backend), `calibration` and `quantize` (int8), `parity` (the comparison with eager), `card`,
`build` (the bundle).
"""

from __future__ import annotations

from nanocap.errors import MissingExtraError

try:
    import onnx  # noqa: F401
    import onnxscript  # noqa: F401
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtraError("nanocap.convert", "convert", error.name) from error
