"""How an image becomes the encoder's input, as data that every binding can follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nanocap.bounds import whole
from nanocap.errors import OptionError

FITS = ("squash",)
# Pillow's resize, as what another language has to do to get the same bytes: each output is the sum
# of the inputs under a kernel, `support` inputs wide on either side, times the scale where it
# reduces. The weights sum to one and are rounded to `precision_bits` binary places, and each pass
# rounds its sums to bytes. A cubic kernel has the parameter `a`.
RESIZES: dict[str, dict[str, Any]] = {
    kernel: {
        "kernel": kernel,
        "support": support,
        **parameters,
        "antialias": True,
        "passes": ["horizontal", "vertical"],
        "precision_bits": 22,
    }
    for kernel, support, parameters in (("bilinear", 1, {}), ("bicubic", 2, {"a": -0.5}))
}
RESAMPLES = tuple(RESIZES)
EXIF = ("apply", "ignore")


@dataclass(frozen=True)
class ImageRule:
    """How an image becomes the encoder's input: checked when made, raises OptionError."""

    size: int = 224  # side of the square input, in pixels
    fit: str = "squash"  # both sides are scaled to `size`, whatever the aspect
    resample: str = "bilinear"  # always antialiased: its support grows with the scale
    # Per channel, on the scale 0 to 255. The encoder graph applies them itself; they are here for
    # bindings whose graph does not.
    mean: tuple[float, float, float] = (127.0, 127.0, 127.0)
    std: tuple[float, float, float] = (128.0, 128.0, 128.0)
    exif: str = "apply"  # turns the image upright by its EXIF orientation; `ignore` does not

    def __post_init__(self) -> None:
        whole("image rule: size", self.size, 1, 4096)
        for field, known in (("fit", FITS), ("resample", RESAMPLES), ("exif", EXIF)):
            if getattr(self, field) not in known:
                raise OptionError(
                    f"image rule: {field} must be one of {', '.join(known)},"
                    f" got {getattr(self, field)!r}"
                )
        try:
            fine = len(self.mean) == len(self.std) == 3 and min(self.std) > 0
        except TypeError:
            fine = False
        if not fine:
            raise OptionError("image rule: mean and std need three numbers each, std above 0")
