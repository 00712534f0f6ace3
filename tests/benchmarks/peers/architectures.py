"""The architectures that a user would pick instead, from their published configurations.

Only the numbers that shape the work are here: no weights, no tokenizers. A model made from one has
random weights, which take as long to multiply as trained ones. Each `source` is the page whose
`config.json` the numbers come from; what it leaves out is the default in transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

GPT2_END = 50256  # also its beginning and its padding

# <image> 577 times (a 24 x 24 map and its mean), then the 8 ids of the prompt for a short caption,
# "<s>What does the image describe?</s>"; which words they are does not matter here.
FLORENCE2_IMAGE = 51289
FLORENCE2_PROMPT = (*(FLORENCE2_IMAGE,) * 577, 0, *range(1000, 1006), 2)

# One image of 512 x 512, unsplit: 64 visual tokens between their marks, and some 16 ids of chat
# template and question ("User: Can you describe this image? Assistant:").
SMOLVLM_IMAGE = 49190
SMOLVLM_PROMPT = (*range(1000, 1004), *(SMOLVLM_IMAGE,) * 64, *range(1004, 1016))


@dataclass(frozen=True)
class Architecture:
    """A model that captions, how it is made, and what it is fed.

    Attributes:
        title: for the table.
        source: the page of the published configuration.
        model: the class in transformers.
        config: makes its configuration; imports transformers.
        size: side of the square image that it takes, in pixels.
        prompt: ids that it reads before it writes; none where it starts by itself.
        echoed: ids that `generate` returns in front of the new ones.
        tiled: whether the pixels have an axis for several tiles of one photo.
    """

    title: str
    source: str
    model: str
    config: Callable[[], Any]
    size: int
    prompt: tuple[int, ...] = ()
    echoed: int = 1
    tiled: bool = False

    def build(self) -> Any:
        """A model with random weights, ready to be saved."""
        import torch
        import transformers

        torch.manual_seed(0)
        return getattr(transformers, self.model)(self.config()).eval()


def vit_and_gpt2(layers: int) -> Callable[[], Any]:
    """ViT-B/16 at 224 pixels (197 visual tokens), and a GPT-2 of so many layers that reads them."""

    def config() -> Any:
        from transformers import GPT2Config, VisionEncoderDecoderConfig, ViTConfig

        decoder = GPT2Config(n_layer=layers, is_decoder=True, add_cross_attention=True)
        both = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(), decoder)
        both.decoder_start_token_id = both.pad_token_id = both.eos_token_id = GPT2_END
        return both

    return config


def blip() -> Any:
    """ViT-B/16 at 384 pixels (577 visual tokens), and a BERT-base that reads them."""
    from transformers import BlipConfig

    return BlipConfig(
        text_config={"num_attention_heads": 12}, vision_config={}, image_text_hidden_size=256
    )


def git() -> Any:
    """CLIP's ViT-B/16 at 224 pixels, in one sequence with six layers of text."""
    from transformers import GitConfig

    return GitConfig()


def florence2() -> Any:
    """DaViT-base at 768 pixels, and a BART-base that reads its map and a prompt.

    The vocabulary has 51,289 pieces, and one that transformers adds for the image's place.
    """
    from transformers import BartConfig, Florence2Config

    text = BartConfig(
        vocab_size=FLORENCE2_IMAGE + 1,
        d_model=768,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        max_position_embeddings=1024,
        decoder_start_token_id=2,
        forced_eos_token_id=None,  # the count of tokens is set from outside
    )
    return Florence2Config(
        text_config=text.to_dict(),
        vision_config={"projection_dim": 768},
        image_token_id=FLORENCE2_IMAGE,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
    )


def smolvlm() -> Any:
    """SigLIP-B/16 at 512 pixels, four by four of its patches to a token, and SmolLM2-135M.

    Its processor cuts large photos into as many as 17 tiles by default. Here it gets the single
    tile of `do_image_splitting=False`, its fastest documented setting.
    """
    from transformers import Idefics3Config

    return Idefics3Config(
        image_token_id=SMOLVLM_IMAGE,
        scale_factor=4,
        pad_token_id=2,
        bos_token_id=1,
        eos_token_id=49279,
        vision_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 512,
            "patch_size": 16,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 49280,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 100000.0,
            "pad_token_id": 2,
        },
    )


HUB = "https://huggingface.co/"
ARCHITECTURES = {
    "vit-gpt2": Architecture(
        title="ViT-B/16 + GPT-2",
        source=HUB + "nlpconnect/vit-gpt2-image-captioning",
        model="VisionEncoderDecoderModel",
        config=vit_and_gpt2(12),
        size=224,
    ),
    "vit-distilgpt2": Architecture(
        title="ViT-B/16 + DistilGPT2",
        source=HUB + "Mozilla/distilvit",
        model="VisionEncoderDecoderModel",
        config=vit_and_gpt2(6),
        size=224,
    ),
    "blip": Architecture(
        title="BLIP-base",
        source=HUB + "Salesforce/blip-image-captioning-base",
        model="BlipForConditionalGeneration",
        config=blip,
        size=384,
    ),
    "git": Architecture(
        title="GIT-base",
        source=HUB + "microsoft/git-base-coco",
        model="GitForCausalLM",
        config=git,
        size=224,
    ),
    "florence2": Architecture(
        title="Florence-2-base",
        source=HUB + "microsoft/Florence-2-base",
        model="Florence2ForConditionalGeneration",
        config=florence2,
        size=768,
        prompt=FLORENCE2_PROMPT,
    ),
    "smolvlm": Architecture(
        title="SmolVLM-256M",
        source=HUB + "HuggingFaceTB/SmolVLM-256M-Instruct",
        model="Idefics3ForConditionalGeneration",
        config=smolvlm,
        size=512,
        prompt=SMOLVLM_PROMPT,
        echoed=len(SMOLVLM_PROMPT),
        tiled=True,
    ),
}
