"""Palettes: few values, well chosen, and stored as Core ML reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coremltools.optimize import _utils
from hypothesis import given, settings
from hypothesis import strategies as st

from nanocap.convert.coreml.blobs import unpack
from nanocap.convert.coreml.palette import cluster, few_values
from nanocap.convert.errors import ConversionError

from .interpreter_operators import OPERATORS


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([1, 2, 4, 6, 8]), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_packed_indices_come_back(bits: int, count: int, seed: int) -> None:
    """Three readings of the format: coremltools packs, the exporter and the interpreter unpack."""
    indices = np.random.default_rng(seed).integers(0, 1 << bits, count).astype(np.uint8)
    packed = _utils.pack_elements_into_bits(indices, bits)
    assert (unpack(packed, 1 << bits, count) == indices).all()
    lut = torch.arange(1 << bits) * 0.5
    unpacked = OPERATORS["constexpr_lut_to_dense"](
        indices=torch.from_numpy(packed.astype(np.int64)), lut=lut, shape=torch.tensor([count, 1])
    )
    assert (unpacked[:, 0].numpy() == indices * 0.5).all()


def test_indices_of_another_length_are_refused() -> None:
    with pytest.raises(ConversionError, match="3 bytes are not 4 indices into 16 values"):
        unpack(np.zeros(3, np.uint8), 16, 4)


def test_clusters_beat_equal_steps() -> None:
    values = np.random.default_rng(0).standard_normal(20_000)
    centres = cluster(values, np.ones_like(values), 16)
    assert (np.diff(centres) > 0).all()
    steps = np.linspace(values.min(), values.max(), 16)

    def error(palette: np.ndarray) -> float:
        return float(np.square(values[:, None] - palette).min(1).mean())

    assert error(centres) < 0.0105  # the best of 16 for a normal distribution is 0.0095 (Max, 1960)
    assert error(centres) < 0.5 * error(steps)


def test_a_weight_that_counts_more_is_met_more_closely() -> None:
    values = np.linspace(-1, 1, 4001)
    centres = cluster(values, np.where(values > 0, 100.0, 1.0), 16)
    assert (centres > 0).sum() > 10


def test_what_has_few_values_stays_as_it_is() -> None:
    values = np.tile([0.5, -2.0, 0.0, 7.0], 600)
    assert cluster(values, np.ones_like(values), 16).tolist() == [-2.0, 0.0, 0.5, 7.0]
    weight = torch.from_numpy(values).float().reshape(60, 40)
    assert torch.equal(few_values(weight, 16, None), weight)


@pytest.mark.parametrize("count", [16, 64, 256])
def test_few_values_are_few_and_fp16(count: int) -> None:
    weight = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    rounded = few_values(weight, count, None)
    assert len(rounded.unique()) <= count
    assert torch.equal(rounded, rounded.half().float())
    assert (rounded - weight).abs().mean() < 2 / count


def test_errors_passed_on_make_up_for_each_other() -> None:
    """GPTQ: of inputs that go together, what one weight loses another makes good."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 48, generator=generator)
    x = torch.randn(4000, 48, generator=generator) @ torch.randn(48, 48, generator=generator)
    x += 3 * torch.randn(4000, 1, generator=generator)

    def loss(rounded: torch.Tensor) -> float:
        return float((x @ (rounded - weight).T).square().mean())

    moments = (x.T @ x).double() / len(x)
    passed, nearest = few_values(weight, 16, moments), few_values(weight, 16, None)
    assert len(passed.unique()) <= 16
    assert loss(passed) < 0.5 * loss(nearest)
