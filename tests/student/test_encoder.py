"""The encoder: proportional attention, reduction inside the blocks, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nanocap.student import Dimensions
from nanocap.student.encoder import Encoder, EncoderBlock
from nanocap.student.reducers import REDUCERS, Reducer


class Recorder:
    """A reducer that notes what it was given and what it answered."""

    def __init__(self, reducer: Reducer):
        self.reducer = reducer
        self.given: list[Tensor] = []
        self.answer: Tensor | None = None

    def assign(self, keys_BNC: Tensor, attention_BN: Tensor, keep: int) -> Tensor:
        self.given = [keys_BNC, attention_BN]
        self.answer = self.reducer.assign(keys_BNC, attention_BN, keep)
        return self.answer


def test_a_token_of_size_two_counts_as_two(small: Dimensions) -> None:
    a, b = torch.randn(1, 1, 32), torch.randn(1, 1, 32)
    twice = EncoderBlock(small, keep=3)
    once = EncoderBlock(small, keep=2)
    once.load_state_dict(twice.state_dict())
    apart, _ = twice(torch.cat([a, b, b], 1), torch.ones(1, 3, 1))
    sized, _ = once(torch.cat([a, b], 1), torch.tensor([[[1.0], [2.0]]]))
    torch.testing.assert_close(apart[:, :2], sized)
    torch.testing.assert_close(apart[:, 2], apart[:, 1])
    unsized, _ = once(torch.cat([a, b], 1), torch.ones(1, 2, 1))
    assert not torch.allclose(unsized, sized, atol=1e-4)


def test_the_reducer_sees_how_much_attention_each_token_receives(small: Dimensions) -> None:
    block = EncoderBlock(small, keep=9)
    block.reducer = recorder = Recorder(block.reducer)
    block(torch.randn(2, 16, 32), torch.ones(2, 16, 1))
    keys, attention = recorder.given
    assert keys.shape == (2, 16, 32)
    assert attention.shape == (2, 16)
    torch.testing.assert_close(attention.sum(1), torch.ones(2))  # a mean of distributions


@pytest.mark.parametrize("name", [name for name in REDUCERS if name != "none"])
def test_no_gradient_through_the_decision_but_to_the_tokens(name: str, small: Dimensions) -> None:
    keep = 8
    block = EncoderBlock(replace(small, reducer=name), keep)
    block.reducer = recorder = Recorder(block.reducer)
    x = torch.randn(2, 16, 32, requires_grad=True)
    block(x, torch.ones(2, 16, 1))[0].square().sum().backward()
    assert recorder.answer is not None
    assert not any(tensor.requires_grad for tensor in (*recorder.given, recorder.answer))
    assert x.grad is not None
    assert bool((x.grad.abs().sum(2) > 0).all())  # dropped tokens were still attended to
    assert all(parameter.grad is not None for parameter in block.parameters())


@pytest.mark.parametrize("name", REDUCERS)
def test_every_reducer_gives_the_tokens_of_the_dimensions(name: str, small: Dimensions) -> None:
    keep = (16, 16) if name == "none" else (8, 4)
    dimensions = replace(small, reducer=name, keep=keep)
    visual = Encoder(dimensions)(torch.randn(2, 3, 64, 64)).tokens
    assert visual.shape == (2, dimensions.visual_tokens, 32)
    assert bool(visual.isfinite().all())


def test_photos_of_a_batch_do_not_meet(small: Dimensions) -> None:
    encoder, pixels = Encoder(small).eval(), torch.randn(3, 3, 64, 64)
    together = encoder(pixels).tokens
    alone = torch.cat([encoder(one.unsqueeze(0)).tokens for one in pixels])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_from_map_goes_on_where_the_lower_trunk_ends(small: Dimensions) -> None:
    encoder, pixels = Encoder(small), torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder.from_map(encoder.trunk.lower(pixels)), encoder(pixels))


def test_the_coarse_map_lies_over_the_places_that_it_covers(small: Dimensions) -> None:
    top = torch.arange(4.0).reshape(1, 4, 1).expand(1, 4, 32)
    fine = Encoder(small)._onto_grid(top)[0, :, 0].reshape(4, 4)
    assert fine.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
