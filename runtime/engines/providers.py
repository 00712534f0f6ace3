"""ONNX Runtime's execution providers, by the names that people use for the hardware.

Which of them there are depends on the onnxruntime package that is installed: onnxruntime-gpu brings
`cuda` and `tensorrt`, onnxruntime on macOS `coreml`, builds for phones `nnapi`, `qnn`, `xnnpack`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nanocap.errors import EngineError, EngineWarning, OptionError

CPU = "CPUExecutionProvider"
PROVIDERS = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}


@dataclass(frozen=True)
class Providers:
    """What is to run the graphs, the most wanted first; the CPU runs what they leave.

    Attributes:
        names: of `PROVIDERS`.
        strict: refuse to run without all of them, rather than warn.

    Raises:
        OptionError: a name is unknown.
    """

    names: tuple[str, ...] = ()
    strict: bool = False

    def __post_init__(self) -> None:
        for name in self.names:
            if not isinstance(name, str) or name not in PROVIDERS:
                known = ", ".join(PROVIDERS)
                raise OptionError(f"unknown provider {name!r}; known are {known}")

    def among(self, available: Sequence[str]) -> list[str]:
        """ONNX Runtime's names of those that are `available`, the CPU's last."""
        wanted = [PROVIDERS[name] for name in self.names if PROVIDERS[name] in available]
        return list(dict.fromkeys([*wanted, CPU]))

    def check(self, running: Iterable[str]) -> None:
        """Compare with what `running` names, as ONNX Runtime does.

        Raises:
            EngineError: some are missing, and they were demanded; else there is an EngineWarning.
        """
        missing = [name for name in self.names if PROVIDERS[name] not in running]
        if not missing:
            return
        what = ", ".join(missing)
        remedy = "install the onnxruntime package and the drivers for it"
        if self.strict:
            raise EngineError(f"provider {what} is not available here; {remedy}, or ask for cpu")
        others = [name for name in self.names if name not in missing and name != "cpu"]
        instead = ", ".join([*others, "cpu"])
        warnings.warn(
            f"provider {what} is not available here, {instead} runs instead; {remedy}",
            EngineWarning,
            stacklevel=2,
        )
