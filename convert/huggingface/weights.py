"""A student's weights under the names of a VisionEncoderDecoder with a GPT-2."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nanocap.student import Student

# Of each decoder layer: the name in GPT-2, and the student's layers that stand in it side by side.
NORMS = {"ln_1": "norm_self", "ln_cross_attn": "norm_cross", "ln_2": "norm_mlp"}
PRODUCTS = {
    "attn.c_attn": ("query", "key", "value"),
    "attn.c_proj": ("out",),
    "crossattention.q_attn": ("cross_query",),
    "crossattention.c_attn": ("cross_key", "cross_value"),
    "crossattention.c_proj": ("cross_out",),
    "mlp.c_fc": ("mlp.up",),
    "mlp.c_proj": ("mlp.down",),
}


def vision_encoder_decoder(student: Student) -> dict[str, Tensor]:
    """The tensors of `model.safetensors`. The tied output layer is left out, as GPT-2 does.

    Nothing is approximated: pre-norm, learned positions, exact GELU and a tied embedding are what
    GPT-2 has too, and its cross-attention stands where the student's does.
    """
    state = student.state_dict()
    tensors = {
        f"encoder.{name}": tensor for name, tensor in state.items() if name.startswith("encoder.")
    }
    decoder = "decoder.transformer"
    tensors[f"{decoder}.wte.weight"] = state["decoder.embedding.weight"]
    tensors[f"{decoder}.wpe.weight"] = state["decoder.positions"]
    tensors |= _pair(state, "decoder.norm", f"{decoder}.ln_f")
    for layer in range(student.dimensions.decoder_layers):
        ours, theirs = f"decoder.layers.{layer}", f"{decoder}.h.{layer}"
        for name, source in NORMS.items():
            tensors |= _pair(state, f"{ours}.{source}", f"{theirs}.{name}")
        for name, sources in PRODUCTS.items():
            # GPT-2 keeps its weights as [in, out]
            weights = [state[f"{ours}.{source}.weight"].t() for source in sources]
            tensors[f"{theirs}.{name}.weight"] = torch.cat(weights, dim=1)
            biases = [state[f"{ours}.{source}.bias"] for source in sources]
            tensors[f"{theirs}.{name}.bias"] = torch.cat(biases)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _pair(state: Mapping[str, Tensor], source: str, name: str) -> dict[str, Tensor]:
    return {f"{name}.{part}": state[f"{source}.{part}"] for part in ("weight", "bias")}
