"""The decoder: a full pass equals the prefix and single steps; rows do not see each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nanocap.student import Dimensions
from nanocap.student.decoder import Decoder, Memory
from nanocap.student.evidence import Seen, has_said, with_copies

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(params=[0, 3], ids=["alone", "evidence"])
def decoder(small: Dimensions, request: pytest.FixtureRequest) -> Decoder:
    decoder = Decoder(replace(small, evidence=request.param, concepts=5)).eval()
    torch.nn.init.normal_(decoder.positions)  # at rest they are zeros, which would hide a mistake
    return decoder


@torch.no_grad()
def memory(decoder: Decoder, visual_BNC: Tensor) -> Memory:
    """Of visual tokens, and of evidence that is a function of them."""
    if decoder.copying is None:
        return decoder.cross(Seen.plain(visual_BNC))
    values, places = visual_BNC[:, 0].topk(decoder.dimensions.evidence, 1)
    none = visual_BNC.new_zeros(len(visual_BNC), 0)
    return decoder.cross(Seen(visual_BNC, places + 9, -values.abs(), none, none))


@torch.no_grad()
def logits_of(decoder: Decoder, kept: Memory, past_BKT: Tensor, *given: Tensor) -> list[Tensor]:
    """What a step gives, with the words that it copies; `past_BKT`: what has been fed."""
    logits, copies, *caches = decoder.step(given[0], given[1], kept, *given[2:])
    if decoder.copying is not None:
        said = has_said(past_BKT, kept.evidence)
        logits = with_copies(logits, copies, kept.evidence, said)
    return [logits, *caches]


def empty_cache(decoder: Decoder, rows: int) -> tuple[Tensor, Tensor]:
    sizes = decoder.dimensions
    zeros = torch.zeros(sizes.decoder_layers, rows, sizes.max_tokens, sizes.width)
    return zeros, zeros.clone()


@torch.no_grad()
def steps(decoder: Decoder, tokens_BKT: Tensor, visual_BNC: Tensor, alone: int = 0) -> Tensor:
    """Logits [B, K, T, V] position by position; the first `alone` positions with one beam."""
    images, beams, length = tokens_BKT.shape
    kept = memory(decoder, visual_BNC)
    keys, values = empty_cache(decoder, images * (1 if alone else beams))
    logits = []
    for position in range(length):
        if alone and position == alone:
            keys, values = (t.repeat_interleave(beams, dim=1) for t in (keys, values))
        tokens = tokens_BKT[:, : 1 if position < alone else beams, position]
        here = torch.tensor([position])
        past = tokens_BKT[:, : tokens.shape[1], : position + 1]
        answer, keys, values = logits_of(decoder, kept, past, tokens, here, keys, values)
        logits.append(answer.expand(-1, beams, -1))
    return torch.stack(logits, dim=2)


@torch.no_grad()
def full(decoder: Decoder, tokens_BKT: Tensor, visual_BNC: Tensor) -> Tensor:
    return decoder(tokens_BKT, memory(decoder, visual_BNC))


@pytest.mark.parametrize("length", [1, 2, 7, 12])
def test_full_pass_is_single_steps(decoder: Decoder, length: int) -> None:
    tokens, visual = torch.randint(0, 50, (2, 3, length)), torch.randn(2, 6, 32)
    torch.testing.assert_close(
        steps(decoder, tokens, visual), full(decoder, tokens, visual), **TOLERANCE
    )


def test_full_pass_is_the_prefix_of_one_beam_and_single_steps_of_several(decoder: Decoder) -> None:
    tokens, visual = torch.randint(0, 50, (2, 3, 9)), torch.randn(2, 6, 32)
    tokens[:, :, :2] = torch.tensor([3, 6])  # the control tokens are the same for every beam
    torch.testing.assert_close(
        steps(decoder, tokens, visual, alone=2), full(decoder, tokens, visual), **TOLERANCE
    )


def test_no_position_sees_what_follows(decoder: Decoder) -> None:
    tokens, visual = torch.randint(0, 50, (1, 1, 10)), torch.randn(1, 6, 32)
    before = full(decoder, tokens, visual)
    for position in range(1, 10):
        changed = tokens.clone()
        changed[0, 0, position] = (tokens[0, 0, position] + 1) % 50
        after = full(decoder, changed, visual)
        torch.testing.assert_close(after[:, :, :position], before[:, :, :position], **TOLERANCE)
        assert not torch.allclose(after[:, :, position], before[:, :, position], atol=1e-3)


def test_beams_share_their_photo_and_nothing_else(decoder: Decoder) -> None:
    tokens, visual = torch.randint(0, 50, (3, 4, 8)), torch.randn(3, 6, 32)
    together = steps(decoder, tokens, visual)
    for image in range(3):
        for beam in range(4):
            alone = steps(decoder, tokens[image, beam][None, None], visual[image, None])
            torch.testing.assert_close(together[image, beam], alone[0, 0], **TOLERANCE)


def test_another_photo_changes_the_logits(decoder: Decoder) -> None:
    tokens, visual = torch.randint(0, 50, (1, 1, 5)).expand(2, 1, 5), torch.randn(2, 6, 32)
    one, other = full(decoder, tokens, visual)
    assert not torch.allclose(one, other, atol=1e-3)


def test_padding_does_not_leak(decoder: Decoder) -> None:
    short, long = torch.randint(9, 50, (5,)), torch.randint(9, 50, (11,))
    table = torch.zeros(1, 2, 11, dtype=torch.int64)
    table[0, 0, :5], table[0, 1] = short, long
    visual = torch.randn(1, 6, 32)
    padded = full(decoder, table, visual)
    torch.testing.assert_close(
        padded[0, 0, :5], full(decoder, short[None, None], visual)[0, 0], **TOLERANCE
    )
    torch.testing.assert_close(
        padded[0, 1], full(decoder, long[None, None], visual)[0, 0], **TOLERANCE
    )


@torch.no_grad()
def test_a_step_writes_its_own_place_of_the_cache_only(decoder: Decoder) -> None:
    kept = memory(decoder, torch.randn(1, 6, 32))
    keys, values = torch.randn(2, 2, 12, 32), torch.randn(2, 2, 12, 32)
    tokens, here = torch.tensor([[7, 8]]), torch.tensor([4])
    _, _, new_keys, new_values = decoder.step(tokens, here, kept, keys, values)
    others = [place for place in range(12) if place != 4]
    for new, old in ((new_keys, keys), (new_values, values)):
        assert torch.equal(new[:, :, others], old[:, :, others])
        assert not torch.allclose(new[:, :, 4], old[:, :, 4])


@torch.no_grad()
def test_what_stands_in_the_cache_ahead_does_not_matter(decoder: Decoder) -> None:
    kept = memory(decoder, torch.randn(1, 6, 32))
    keys, values = torch.randn(2, 1, 12, 32), torch.randn(2, 1, 12, 32)
    token, here = torch.tensor([[7]]), torch.tensor([4])
    before, *_ = decoder.step(token, here, kept, keys, values)
    keys[:, :, 4:], values[:, :, 4:] = 100.0, -100.0
    after, *_ = decoder.step(token, here, kept, keys, values)
    torch.testing.assert_close(after, before, **TOLERANCE)


def test_embeddings_are_tied(decoder: Decoder) -> None:
    state = torch.randn(3, 32)
    expected = state @ decoder.embedding.weight.T
    torch.testing.assert_close(decoder.logits(state), expected)
