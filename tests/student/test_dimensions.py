"""The record that travels with the weights."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocap.errors import NanocapError
from nanocap.student import PRESETS, Dimensions, Student
from nanocap.student.dimensions import Widths
from nanocap.student.student import count_parameters

MILLION = 1_000_000


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip_through_json(name: str) -> None:
    dimensions = PRESETS[name]
    assert Dimensions.from_dict(json.loads(json.dumps(dimensions.to_dict()))) == dimensions


@given(st.integers(1, 8), st.integers(1, 6), st.lists(st.integers(1, 196), max_size=4))
def test_round_trip_of_any(heads: int, layers: int, keep: list[int]) -> None:
    keep = sorted(keep, reverse=True)
    dimensions = Dimensions(
        width=16 * heads,
        heads=heads,
        decoder_layers=layers,
        encoder_blocks=len(keep),
        keep=tuple(keep),
    )
    assert Dimensions.from_dict(dimensions.to_dict()) == dimensions
    assert dimensions.visual_tokens == (keep[-1] if keep else 196)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("nano-xs", 4 * MILLION, 7 * MILLION),
        ("nano-s", 8 * MILLION, 12 * MILLION),
        ("nano-m", 22 * MILLION, 28 * MILLION),
    ],
)
def test_sizes_of_the_presets(name: str, least: int, most: int) -> None:
    assert least < count_parameters(Student(PRESETS[name])) < most


def test_the_grid_is_the_map_at_stride_16() -> None:
    assert PRESETS["nano-s"].grid == 14
    assert PRESETS["nano-s"].visual_tokens == 49


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 250}, "width 250 is not a multiple of heads 4"),
        ({"keep": [98]}, "keep [98] must name one token count for each of the 2 encoder blocks"),
        ({"keep": [98, 99]}, "keep [98, 99] must not grow and starts at 196"),
        ({"keep": [197, 49]}, "keep [197, 49] must not grow and starts at 196"),
        ({"keep": [98, 0]}, "keep [98, 0] must not grow and starts at 196"),
        ({"image_size": 200}, "image_size 200 is not a multiple of 32"),
        ({"heads": 0}, "heads must be at least 1, not 0"),
        ({"max_tokens": 2}, "max_tokens must be at least 3, not 2"),
        ({"width": "wide"}, "dimension 'width' must be of type int, not 'wide'"),
        ({"heads": True}, "dimension 'heads' must be of type int, not True"),
        ({"trunk": 3}, "dimension 'trunk' must be of type str, not 3"),
        ({"keep": 49}, "dimension 'keep' must be a list of whole numbers, not 49"),
        ({"keep": [9.5, 4]}, "dimension 'keep' must be a list of whole numbers, not [9.5, 4]"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(NanocapError) as caught:
        Dimensions.from_dict(values)
    assert str(caught.value) == message


def test_unknown_dimension() -> None:
    with pytest.raises(
        NanocapError, match=r"^unknown dimension 'depth'; known are concepts, decoder"
    ):
        Dimensions.from_dict({"depth": 3})


#: Of nano-s: 2 encoder blocks, 3 decoder layers, 4 heads, width 256.
PRUNED: dict[str, Any] = {
    "encoder_attention": [128, 4],
    "encoder_mlp": [500, 1024],
    "decoder_attention": 200,
    "cross_attention": 256,
    "decoder_mlp": [1, 77, 900],
}


def test_widths_of_a_pruned_student_travel_along() -> None:
    dimensions = Dimensions.from_dict({"pruned": PRUNED})
    assert dimensions.pruned == dimensions.widths == Widths.from_dict(PRUNED)
    assert Dimensions.from_dict(json.loads(json.dumps(dimensions.to_dict()))) == dimensions
    shapes = {n: tuple(p.shape) for n, p in Student(dimensions).named_parameters()}
    assert shapes["encoder.blocks.1.key.weight"] == (4, 256)
    assert shapes["encoder.blocks.0.mlp.down.weight"] == (256, 500)
    assert shapes["decoder.layers.2.out.weight"] == (256, 200)
    assert shapes["decoder.layers.0.cross_value.bias"] == (256,)
    assert shapes["decoder.layers.0.mlp.up.weight"] == (1, 256)


def test_a_whole_student_says_nothing_of_widths() -> None:
    dimensions = Dimensions()
    assert "pruned" not in dimensions.to_dict()
    assert dimensions.pruned is None
    assert dimensions.widths == dimensions.whole
    named = Dimensions(pruned=dimensions.whole)
    assert count_parameters(Student(named)) == count_parameters(Student(dimensions))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"decoder_attention": 201},
            "pruned.decoder_attention 201 is not a multiple of 4 from 4",
        ),
        ({"cross_attention": 0}, "pruned.cross_attention 0 is not a multiple of 4 from 4 to 256"),
        (
            {"decoder_mlp": [1, 2, 1025]},
            "pruned.decoder_mlp 1025 is not a multiple of 1 from 1",
        ),
        ({"decoder_mlp": [1, 2]}, "pruned.decoder_mlp must have 3 entries"),
        ({"decoder_mlp": 5}, "dimension 'pruned.decoder_mlp' must be a list of whole numbers"),
        ({"encoder_mlp": [1.5, 2]}, "dimension 'pruned.encoder_mlp' must be a list of whole numb"),
        ({"cross_attention": True}, "dimension 'pruned.cross_attention' must be a whole number"),
        ({"depth": 3}, "dimension 'pruned' must be a table of encoder_attention, encoder_mlp, de"),
    ],
)
def test_widths_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NanocapError) as caught:
        Dimensions.from_dict({"pruned": {**PRUNED, **changes}})
    assert str(caught.value).startswith(message)
    with pytest.raises(NanocapError, match=r"^dimension 'pruned' must be a table"):
        Dimensions.from_dict({"pruned": None})
