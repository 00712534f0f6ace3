"""Caption a photo on the device, offline.

    from nanocap import Captioner

    captioner = Captioner()
    print(captioner("photo.jpg"))

Names are imported when they are first used: `import nanocap` costs next to nothing.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanocap.caption import Caption, Tag, Token
    from nanocap.errors import NanocapError
    from nanocap.runtime.captioner import Captioner

__version__ = "0.1.0"
__all__ = ["Caption", "Captioner", "NanocapError", "Tag", "Token", "__version__"]

_HOMES = {
    "Caption": "nanocap.caption",
    "Captioner": "nanocap.runtime.captioner",
    "NanocapError": "nanocap.errors",
    "Tag": "nanocap.caption",
    "Token": "nanocap.caption",
}

# Nothing leaves the device. These libraries send telemetry unless told otherwise in the environment
# before they are imported; ONNX Runtime also keeps a device id below the home folder, and its
# switch `disable_telemetry_events()` comes too late for both. Whoever chose otherwise is heeded.
if "onnxruntime" in sys.modules and "ORT_DISABLE_TELEMETRY" not in os.environ:
    warnings.warn(
        "onnxruntime was imported before nanocap, with its telemetry on: import nanocap first, or"
        " set ORT_DISABLE_TELEMETRY=1",
        RuntimeWarning,
        stacklevel=2,
    )
for _switch, _off in (
    ("ORT_DISABLE_TELEMETRY", "1"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("RAY_USAGE_STATS_ENABLED", "0"),
):
    os.environ.setdefault(_switch, _off)

# In a checkout, runtime/, distill/ and convert/ lie beside this folder; where the package is
# installed, inside of it.
_here = os.path.dirname(__file__)
_root = os.path.dirname(_here)
if not os.path.isdir(os.path.join(_here, "runtime")) and os.path.isdir(
    os.path.join(_root, "runtime")
):
    __path__.append(_root)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nanocap' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
