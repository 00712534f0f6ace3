"""The student rewritten for ExecuTorch's XNNPACK delegate: what `exporter` lowers.

What the delegate does not take runs outside it, one slow operator at a time, and splits it in two.
So the graphs here are written in what it takes: norms become products (`norms`), comparisons become
arithmetic (`merging`), and one photo is a matrix without a batch axis (`encoder`, `decoder`).
"""

from __future__ import annotations

from nanocap.errors import MissingExtraError

try:
    import executorch.exir  # noqa: F401
    import torchao  # noqa: F401
except ImportError as error:
    raise MissingExtraError("nanocap convert --to executorch", "executorch", error.name) from error
