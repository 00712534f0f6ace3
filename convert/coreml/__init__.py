"""A student as Core ML packages.

Reading order: `program` (its two graphs as ML programs), `moments` and `palette` (weights of few
values), `package` (the files of an `.mlpackage`), `blobs` (its weights), `check` (what is proven
without Core ML). `exporter` is what makes the artifacts.
"""

from __future__ import annotations

import logging

from nanocap.errors import MissingExtraError

# Off macOS coremltools warns eight times at import that it cannot predict, and once of every torch.
logging.getLogger("coremltools").setLevel(logging.ERROR)
try:
    import coremltools  # noqa: F401
except ImportError as error:
    raise MissingExtraError("the coreml backend of nanocap.convert", "coreml", error.name) from None
