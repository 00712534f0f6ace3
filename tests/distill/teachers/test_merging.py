"""Token merging in LLaVA's tower: against a plain loop over its blocks, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

from nanocap.distill.teachers.merging import TokenMerging
from nanocap.errors import OptionError
from nanocap.student.merging import apply_assignment, bipartite_soft_matching

IMAGE = 3  # the token that stands for a patch in a prompt
PATCHES = 16


@pytest.fixture
def llava() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    config = tf.LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "image_size": 32,
            "patch_size": 8,
            "num_hidden_layers": 4,
            **sizes,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 20,
            "num_hidden_layers": 1,
            "num_key_value_heads": 1,
            "head_dim": 8,
            **sizes,
        },
        image_token_index=IMAGE,
        vision_feature_layer=-2,
    )
    return tf.LlavaForConditionalGeneration(config).eval()


@torch.no_grad()
def features(model: Any, pixels: Tensor) -> Tensor:
    seen = model.get_image_features(
        pixel_values=pixels, vision_feature_layer=-2, vision_feature_select_strategy="default"
    )
    return torch.stack(list(seen.pooler_output))


def test_all_tokens_are_what_they_were(llava: Any) -> None:
    pixels = torch.randn(2, 3, 32, 32)
    plain = features(llava, pixels)
    merging = TokenMerging(llava, 1.0)
    assert merging.tokens == PATCHES
    torch.testing.assert_close(features(llava, pixels), plain)


@torch.no_grad()
def test_merging_is_a_plain_loop_over_the_blocks(llava: Any) -> None:
    """16 patches to 8 in the three blocks that are looked at: 13, 11, 8."""
    pixels, plain = 3 * torch.randn(2, 3, 32, 32), copy.deepcopy(llava)
    tower = plain.model.vision_tower
    tower = getattr(tower, "vision_model", tower)
    x = tower.pre_layrnorm(tower.embeddings(pixels))
    sizes = torch.ones(2, PATCHES + 1, 1)
    for block, keep in zip(tower.encoder.layers, (13, 11, 8), strict=False):
        bias = sizes.log().transpose(1, 2).unsqueeze(1).expand(-1, -1, x.shape[1], -1)
        keys = block.self_attn.k_proj(block.layer_norm1(x))[:, 1:]
        x = block(x, bias)
        matching = bipartite_soft_matching(keys, keep)
        patches, merged = apply_assignment(matching, x[:, 1:], sizes[:, 1:])
        x, sizes = torch.cat([x[:, :1], patches], 1), torch.cat([sizes[:, :1], merged], 1)
    assert sizes[:, 1:].sum(1).tolist() == [[PATCHES], [PATCHES]]  # no patch is lost
    expected = plain.model.multi_modal_projector(x[:, 1:])
    TokenMerging(llava, 0.5)
    found = features(llava, pixels)
    assert found.shape[1] == 8
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(features(llava, pixels), expected)  # and so the next time


def test_prompts_have_a_place_for_each_token_that_is_left(llava: Any) -> None:
    merging = TokenMerging(llava, 0.25)
    ids = torch.tensor([[0, 1, *[IMAGE] * PATCHES, 5, 6], [1, *[IMAGE] * PATCHES, 7, 8, 9]])
    mask = torch.ones_like(ids)
    mask[0, 0] = 0
    pixels = torch.randn(2, 3, 32, 32)
    inputs = merging.shorten({"input_ids": ids, "attention_mask": mask, "pixel_values": pixels})
    assert inputs["input_ids"].tolist() == [[0, 1, *[IMAGE] * 4, 5, 6], [1, *[IMAGE] * 4, 7, 8, 9]]
    assert inputs["attention_mask"].tolist() == [[0, *[1] * 7], [1] * 8]
    with torch.no_grad():
        logits = llava(**inputs).logits
    assert logits.shape == (2, 8, 20)


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (0.0, r"^--merge 0\.0: must be above 0, and at most 1$"),
        (1.5, r"^--merge 1\.5: must be above 0"),
        (0.06, r"^--merge 0\.06: 3 blocks cannot merge 16 tokens to 1, at most half of them"),
    ],
)
def test_shares_that_cannot_be(llava: Any, share: float, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TokenMerging(llava, share)


def test_other_families(llava: Any) -> None:
    llava.config.model_type = "llava_onevision"
    with pytest.raises(OptionError, match=r"^--merge is for llava models, not llava_onevision"):
        TokenMerging(llava, 0.5)
