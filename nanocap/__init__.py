"""Caption a photo on the device, offline.

    from nanocap import Captioner

    captioner = Captioner()
    print(captioner("photo.jpg"))

Names are imported when they are first used: `import nanocap` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanocap.caption import Caption, Token
    from nanocap.errors import NanocapError
    from nanocap.runtime.captioner import Captioner

__version__ = "0.1.0"
__all__ = ["Caption", "Captioner", "NanocapError", "Token", "__version__"]

_HOMES = {
    "Caption": "nanocap.caption",
    "Captioner": "nanocap.runtime.captioner",
    "NanocapError": "nanocap.errors",
    "Token": "nanocap.caption",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nanocap' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
