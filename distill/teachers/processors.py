"""Processors of transformers for still photos: images by Pillow, no part for video.

`AutoProcessor` would not do: it loads a video processor wherever the model has one, and those need
torchvision, as the image processors that it prefers do. Pillow's are slower, and give the same
labels on machines with and without torchvision.
"""

from __future__ import annotations

from typing import Any

from transformers import PROCESSOR_MAPPING, AutoImageProcessor, AutoTokenizer, PreTrainedConfig

from nanocap.errors import OptionError

VIDEO = "video_processor"


class Parts:
    """An image processor and a tokenizer that nothing joins, as vision-encoder-decoder has them."""

    chat_template = None

    def __init__(self, image_processor: Any, tokenizer: Any):
        self.image_processor, self.tokenizer = image_processor, tokenizer

    def __call__(self, images: list[Any], return_tensors: str) -> Any:
        return self.image_processor(images, return_tensors=return_tensors)


def load_processor(path: str, config: PreTrainedConfig) -> Any:
    """The processor of a model, with `tokenizer` and `chat_template`, for batches padded left.

    Args:
        path: a folder, or a name on the hub.
    Raises:
        OptionError: transformers has no processor for such a model.
        Exception: many kinds, where files are missing or damaged.
    """
    images = AutoImageProcessor.from_pretrained(path, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.model_type == "vision-encoder-decoder":
        return Parts(images, tokenizer)
    if type(config) not in PROCESSOR_MAPPING:
        raise OptionError(f"{path}: transformers has no processor for {config.model_type!r} models")
    kind = _without_video(PROCESSOR_MAPPING[type(config)])
    parts = {"image_processor": images, "tokenizer": tokenizer, VIDEO: None}
    names = kind.get_attributes()
    if "qformer_tokenizer" in names:
        parts["qformer_tokenizer"] = AutoTokenizer.from_pretrained(
            path, subfolder="qformer_tokenizer"
        )
    if not set(names) <= set(parts):
        raise OptionError(f"{path}: its processor needs more than images and text")
    settings, _ = kind.get_processor_dict(path)
    processor = kind.from_args_and_dict([parts[name] for name in names], settings)
    if getattr(processor, "num_query_tokens", 0) is None:  # BLIP-2 files from before it was written
        processor.num_query_tokens = config.num_query_tokens
    return processor


def _without_video(kind: Any) -> Any:
    """The class, content with no video processor."""
    if VIDEO not in kind.get_attributes():
        return kind

    def check(self: Any, name: str, part: object) -> Any:
        return None if name == VIDEO else kind.check_argument_for_proper_class(self, name, part)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})
