"""What a folder says of itself so that transformers, Optimum and transformers.js read it alike.

They are written here rather than by transformers, whose own differ from version to version.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from nanocap.bundle.manifest import SearchDefaults
from nanocap.convert.checkpoint import Checkpoint
from nanocap.convert.errors import ConversionError
from nanocap.student import Dimensions

REGISTER = "nanocap_register.py"
REGISTER_CODE = '''\
"""Lets transformers and Optimum load this folder with trust_remote_code, nanocap being installed.

`import nanocap.interop` before loading does the same, and needs no trust.
"""

import nanocap.interop  # registers the encoder and the image processor
from transformers import VisionEncoderDecoderConfig


class Registered:
    """Stands where a configuration class of this folder would: those of the packages do."""

    from_pretrained = VisionEncoderDecoderConfig.from_pretrained

    @staticmethod
    def register_for_auto_class(auto_class="AutoConfig"):
        """Nothing is to be copied into folders that are saved later."""
'''
LAYER_NORM_EPSILON = 1e-5  # torch's default, which the student has
DECODER = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
# transformers.js wants them all, be they null
TOKENIZER_PARTS = ("normalizer", "pre_tokenizer", "post_processor")


def description_files(checkpoint: Checkpoint, search: SearchDefaults) -> dict[str, bytes]:
    """Every file of the folder but weights, graphs and card, by name.

    Raises:
        ConversionError: the tokenizer is not one of ours.
    """
    processor = {
        "image_processor_type": "NanocapImageProcessor",
        "rule": asdict(checkpoint.rule()),
    }
    files = {
        "config.json": _config(checkpoint, search),
        "generation_config.json": _generation(checkpoint, search),
        "tokenizer_config.json": _tokenizer_config(checkpoint),
        # transformers 4 and 5 read what is under `image_processor`, transformers.js the rest: it
        # knows only its own types, and its resizing is not antialiased, so that the graph does it
        "preprocessor_config.json": {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": False,
            "do_rescale": False,
            "do_normalize": False,
            "image_processor": processor,
        },
        "processor_config.json": {"image_processor": processor},
    }
    written = {name: json.dumps(v, indent=2, ensure_ascii=False) for name, v in files.items()}
    return {
        **{name: f"{text}\n".encode() for name, text in written.items()},
        "tokenizer.json": _tokenizer(checkpoint),
        REGISTER: REGISTER_CODE.encode(),
    }


def _tokenizer(checkpoint: Checkpoint) -> bytes:
    """As it is, with the decoder that makes words of pieces where it has none."""
    tokenizer = json.loads(checkpoint.tokenizer)
    if tokenizer.get("decoder") not in (None, DECODER):
        raise ConversionError(f"{checkpoint.where}: its tokenizer does not mark words by Metaspace")
    whole = {**dict.fromkeys(TOKENIZER_PARTS), **tokenizer, "decoder": DECODER}
    return json.dumps(whole, ensure_ascii=False).encode()


def _config(checkpoint: Checkpoint, search: SearchDefaults) -> dict[str, Any]:
    dimensions, tokens = checkpoint.student.dimensions, checkpoint.tokens()
    ids = {
        "bos_token_id": checkpoint.controls().quality[search.quality],
        "eos_token_id": tokens.end,
        "pad_token_id": tokens.pad,
    }
    return {
        "model_type": "vision-encoder-decoder",
        "architectures": ["VisionEncoderDecoderModel"],
        "auto_map": {"AutoConfig": f"{REGISTER.removesuffix('.py')}.Registered"},
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,  # of encoder and decoder; the decoder's own are tied
        "decoder_start_token_id": ids["bos_token_id"],
        **ids,
        "dtype": "float32",
        "encoder": {
            "model_type": "nanocap",
            "architectures": ["NanocapEncoder"],
            "dimensions": dimensions.to_dict(),
        },
        "decoder": {**_gpt2(dimensions), **ids},
        # in browsers it would look for 8-bit files
        "transformers.js_config": {"dtype": "fp32"},
    }


def _gpt2(dimensions: Dimensions) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "is_decoder": True,
        "add_cross_attention": True,
        "tie_word_embeddings": True,
        "vocab_size": dimensions.vocabulary,
        "n_positions": dimensions.max_tokens,
        "n_embd": dimensions.width,
        "n_layer": dimensions.decoder_layers,
        "n_head": dimensions.heads,
        "n_inner": dimensions.width * dimensions.mlp_ratio,
        "activation_function": "gelu",
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _generation(checkpoint: Checkpoint, search: SearchDefaults) -> dict[str, Any]:
    """The runtime's greedy search in the words of all three libraries.

    The two control tokens are the start token and the one that is forced after it. What is never
    generated stands among the bad words: they are barred before that one is forced, where
    `suppress_tokens` would bar it afterwards.
    """
    controls, end = checkpoint.controls(), checkpoint.tokens().end
    quality, length = controls.quality[search.quality], controls.length[search.length]
    return {
        "decoder_start_token_id": quality,
        "forced_bos_token_id": length,
        "bos_token_id": quality,
        "eos_token_id": end,
        "pad_token_id": checkpoint.tokens().pad,
        "bad_words_ids": [[token] for token in checkpoint.never()],
        "begin_suppress_tokens": [end],  # an empty caption is no answer
        # the last id is never fed, so that one more than there are positions
        "max_length": checkpoint.student.dimensions.max_tokens + 1,
        "do_sample": False,
        "num_beams": 1,
    }


def _tokenizer_config(checkpoint: Checkpoint) -> dict[str, Any]:
    pieces, tokens = checkpoint.vocabulary().pieces, checkpoint.tokens()
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": pieces[tokens.end],
        "pad_token": pieces[tokens.pad],
        "unk_token": pieces[tokens.unknown],
        "clean_up_tokenization_spaces": False,
        "model_max_length": checkpoint.student.dimensions.max_tokens,
        "model_input_names": ["input_ids", "attention_mask"],
    }
