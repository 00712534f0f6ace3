"""One rule for the numbers of arrays and of images made in memory, an error for all else."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from PIL import Image

from nanocap.errors import ImageError
from nanocap.image.image import load_image, load_rgb
from nanocap.image.rule import ImageRule

RULE = ImageRule(size=8)
BYTES = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3) * 2


def refused(source: Any) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, RULE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FORMS: dict[str, Any] = {
    "uint8": BYTES,
    "read-only": np.broadcast_to(BYTES, BYTES.shape),
    "not contiguous": np.repeat(BYTES, 2, axis=1)[:, ::2],
    "mirrored twice": BYTES[::-1].copy()[::-1],
    "uint16": BYTES.astype(np.uint16) * 257,
    "big-endian uint16": (BYTES.astype(np.uint16) * 257).astype(">u2"),
    "float16": BYTES.astype(np.float16) / np.float16(255),
    "float32": BYTES.astype(np.float32) / 255,
    "float64": BYTES / 255,
    "big-endian float": (BYTES / 255).astype(">f4"),
    "nothing masked": np.ma.masked_array(BYTES),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pixels(form: str) -> None:
    np.testing.assert_array_equal(np.asarray(load_rgb(FORMS[form])), BYTES)


def test_what_numpy_makes_an_array_of() -> None:
    class Tensor:
        dtype, shape = "torch.uint8", (6, 5, 3)

        def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[np.uint8]:
            return BYTES

    class Elsewhere(Tensor):
        def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[np.uint8]:
            raise TypeError("can't convert a cuda tensor to numpy")

    np.testing.assert_array_equal(np.asarray(load_rgb(Tensor())), BYTES)  # type: ignore[arg-type]
    assert ".cpu()" in refused(Elsewhere())
    assert "Elsewhere torch.uint8 [6, 5, 3]" in refused(Elsewhere())


@pytest.mark.parametrize(
    ("array", "remedy"),
    [
        (BYTES.astype(np.uint16), "values of 0 to 255 in more than 8 bits"),
        (BYTES.astype(np.float32), "divide by 255"),
        (BYTES / 255 * 1.01 + 0.5, "floats must be in 0 to 1"),
        (BYTES / 255 - 0.5, "floats must be in 0 to 1, these are in -0.5"),
        (np.where(BYTES == 8, np.nan, 0.5), "no numbers"),
        (np.where(BYTES == 8, np.inf, 0.5), "no numbers"),
        (BYTES.astype(np.int64), ".astype('uint8')"),
        (BYTES.astype(np.int8), ".astype('uint8')"),
        (BYTES.astype(np.uint32), ".astype('uint8')"),
        (BYTES.astype(object), ".astype('uint8')"),
        (BYTES.astype(str), ".astype('uint8')"),
        (BYTES.astype(complex), ".astype('uint8')"),
        (np.moveaxis(BYTES, 2, 0), ".transpose(1, 2, 0)"),
        (BYTES[None], "one by one"),
        (np.float32(0.5), "[height, width]"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.ma.masked_equal(BYTES, 8), ".filled(255)"),
    ],
)
def test_what_breaks_the_rule_says_how_to_mend_it(array: Any, remedy: str) -> None:
    message = refused(array)
    assert remedy in message
    assert message.startswith(("array", "MaskedArray", "float32"))


def test_black_is_black_in_any_depth() -> None:
    for dtype in (np.uint8, np.uint16, np.float32, bool):
        assert (load_image(np.zeros((4, 4), dtype), RULE) == 0).all()
    almost = np.full((4, 4), 1 + 5e-4, np.float32)
    assert (load_image(almost, RULE) == 255).all(), "what rounding leaves above 1"


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        (BYTES[..., 0].astype(np.uint16), "values of 0 to 255 in more than 8 bits"),
        (BYTES[..., 0].astype(np.int32), "values of 0 to 255 in more than 8 bits"),
        (BYTES[..., 0].astype(np.int32) - 5000, "integers must be in 0 to 65535"),
        (BYTES[..., 0].astype(np.int32) * 5000, "integers must be in 0 to 65535"),
        (BYTES[..., 0].astype(np.float32), "divide by 255"),
        (np.where(BYTES[..., 0] == 6, np.nan, 0.5).astype(np.float32), "no numbers"),
    ],
)
def test_images_made_in_memory_follow_the_rule(values: Any, remedy: str) -> None:
    image = Image.fromarray(values)
    assert remedy in refused(image)
    assert f"PIL image {image.mode} 5x6" in refused(image)


def test_a_file_says_itself_what_its_numbers_mean() -> None:
    """A dark photo of 16 bits is a dark photo, not a mistake."""
    dark = Image.fromarray(np.full((4, 4), 200, np.uint16))
    file = io.BytesIO()
    dark.save(file, "PNG")
    assert (load_image(file.getvalue(), RULE) == 0).all()
    assert (load_image(Image.open(file), RULE) == 0).all()
    bright = np.array([[0, 1 << 20], [1 << 19, -5]], dtype=np.int32)
    unit = np.array([[0.0, 1.0], [0.5, np.nan]], dtype=np.float32)
    for values, expected in (
        (bright, [[0, 255], [127, 0]]),
        (unit, [[0, 255], [128, 0]]),
        (unit * 200, [[0, 255], [128, 0]]),
    ):
        file = io.BytesIO()
        Image.fromarray(values).save(file, "TIFF")
        assert np.asarray(load_rgb(file.getvalue()))[..., 0].tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    nps.arrays(
        dtype=st.one_of(
            nps.unsigned_integer_dtypes(), nps.integer_dtypes(), nps.floating_dtypes(),
            nps.boolean_dtypes(),
        ),
        shape=nps.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
    )
)  # fmt: skip
def test_any_array_is_an_image_or_an_image_error(array: npt.NDArray[Any]) -> None:
    with suppress(ImageError):
        assert load_image(array, RULE).shape == (8, 8, 3)
