"""Token merging in the vision tower of LLaVA: fewer visual tokens for tower and language model.

Chai et al., "AuroraCap: Efficient, performant video detailed captioning" (2025), after Bolya et
al., "Token merging: Your ViT but faster" (2023). Here tokens merge after a block rather than
between its attention and its MLP, so that the model's own code stays as it is; attention is
proportional to what a token stands for, as in both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nanocap.errors import OptionError
from nanocap.student.merging import apply_assignment, bipartite_soft_matching

MASK = "attention_mask"  # the second argument of a block
MODEL_TYPES = ("llava",)  # whose visual tokens stand in no grid once the tower has seen them


class TokenMerging:
    """Hooks on the blocks of a model's vision tower.

    Args:
        model: `LlavaForConditionalGeneration`.
        share: of the patches that remain as visual tokens, above 0 and at most 1.
    Raises:
        OptionError: the share is not that, a block would merge more than half of its tokens, or
            the model is of another kind.
    """

    def __init__(self, model: Any, share: float):
        config = model.config
        if config.model_type not in MODEL_TYPES:
            raise OptionError(
                f"--merge is for {', '.join(MODEL_TYPES)} models, not {config.model_type}:"
                " others need their visual tokens in a grid"
            )
        if not 0 < share <= 1:
            raise OptionError(f"--merge {share}: must be above 0, and at most 1")
        vision = config.vision_config
        self._image_token = config.image_token_index
        self._patches = (vision.image_size // vision.patch_size) ** 2
        self.tokens = max(1, round(share * self._patches))
        layer = config.vision_feature_layer
        tower = model.model.vision_tower
        blocks = [m for m in tower.modules() if type(m).__name__.endswith("EncoderLayer")]
        seeing = blocks[: len(blocks) + 1 + layer] if layer < 0 else blocks[:layer]
        surplus = self._patches - self.tokens
        left = self._patches
        for place, block in enumerate(seeing):
            keep = self._patches - round(surplus * (place + 1) / len(seeing))
            if keep < left // 2:
                raise OptionError(
                    f"--merge {share}: {len(seeing)} blocks cannot merge {self._patches} tokens to"
                    f" {self.tokens}, at most half of them each: merge less"
                )
            self._hook(block, keep, first=place == 0)
            left = keep
        for block in blocks[len(seeing) :]:  # nothing looks at what they make, but they do run
            self._hook(block, left, first=False)
        # of the photos that go through the tower now
        self._keys, self._sizes = torch.empty(0), torch.empty(0)
        self._alone = 0  # tokens that are no patch: the class token

    def shorten(self, inputs: Any) -> Any:
        """The processor's inputs, a photo a row, with as many places as visual tokens are left."""
        ids: Tensor = inputs["input_ids"]
        is_image = ids == self._image_token
        kept = ~is_image | (is_image.cumsum(1) <= self.tokens)
        for name, value in inputs.items():
            if isinstance(value, Tensor) and value.shape == ids.shape:
                inputs[name] = value[kept].reshape(len(ids), -1)
        return inputs

    def _hook(self, block: nn.Module, keep: int, first: bool) -> None:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            x = args[0] if args else kwargs["hidden_states"]
            if first:
                self._sizes = torch.ones_like(x[:, :, :1], dtype=torch.float32)
                self._alone = x.shape[1] - self._patches
            bias = self._sizes.log().transpose(1, 2).unsqueeze(1).to(x.dtype)
            bias = bias.expand(-1, -1, x.shape[1], -1)
            others = {k: v for k, v in kwargs.items() if k not in ("hidden_states", MASK)}
            return (x, bias, *args[2:]), others

        def remember(_: nn.Module, args: Any, keys: Tensor) -> None:
            self._keys = keys

        def after(_: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):  # transformers 4
                return (self._merge(output[0], keep), *output[1:])
            return self._merge(output, keep)

        block.register_forward_pre_hook(before, with_kwargs=True)
        block.register_forward_hook(after)
        block.get_submodule("self_attn.k_proj").register_forward_hook(remember)

    def _merge(self, x_BNC: Tensor, keep: int) -> Tensor:
        alone = self._alone
        patches = x_BNC[:, alone:]
        if keep >= patches.shape[1]:
            return x_BNC
        keys = self._keys[:, alone:].float()
        assignment = bipartite_soft_matching(keys, keep)
        merged, sizes = apply_assignment(assignment, patches, self._sizes[:, alone:])
        self._sizes = torch.cat([self._sizes[:, :alone], sizes], dim=1)
        return torch.cat([x_BNC[:, :alone], merged], dim=1)
