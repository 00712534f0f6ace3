"""Checkpoint to bundle: export, quantization, parity.

Reading order: `graphs` (what is exported), `tidy` (how its graph is cleaned), `exporters` (one file
a backend), `precisions` (what ONNX makes of a graph: `quantize` with `calibration` and `ranges`,
chosen by `search` with `judge` and `blocks`; `dynamic`, `blockwise`, `half`), `coreml` and
`executorch` (what those backends need), `budgets` (other numbers of visual tokens), `parity` (the
comparison with eager), `build` (the bundle), `report` (what each artifact of a bundle lost). Beside
them, `interop`: a folder for Hugging Face's libraries.
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
