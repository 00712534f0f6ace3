"""From photos with captions to a student: one recipe, one command (`nanocap distill`).

Reading order: `recipes` (what a run is), `data`, `teachers`, `training`. Beside them: `labelling`,
`pruning`, `scorer`.
"""

from __future__ import annotations

import nanocap.threads  # noqa: F401  # before torch
from nanocap.errors import MissingExtraError

try:
    import accelerate  # noqa: F401
    import safetensors  # noqa: F401
    import tokenizers  # noqa: F401
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtraError("nanocap distill", "distill", error.name) from error
