"""The student inside Hugging Face's libraries: importing this registers it with them.

    import nanocap.interop
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    model = AutoModelForImageTextToText.from_pretrained(folder)  # AutoModelForVision2Seq before 5

A folder of `nanocap convert --to transformers` is a VisionEncoderDecoder: the one kind of captioner
that transformers, Optimum and transformers.js all know. Its decoder is, weight for weight, a GPT-2
with cross-attention, which each of them brings along; its encoder and its image rule are nobody's
but ours, and are here.

With Optimum installed, its exporter learns of the encoder as well.

Reading order: `configuration`, `modeling`, `image_processing`, `optimum`.
"""

from __future__ import annotations

from importlib.util import find_spec

import nanocap.threads  # noqa: F401  # before torch
from nanocap.errors import MissingExtraError

try:
    import torch  # noqa: F401
    from transformers import AutoConfig, AutoImageProcessor, AutoModel
except ImportError as error:
    raise MissingExtraError("nanocap.interop", "transformers", error.name) from error

from nanocap.interop.configuration import NanocapConfig
from nanocap.interop.image_processing import NanocapImageProcessor
from nanocap.interop.modeling import NanocapEncoder

__all__ = ["NanocapConfig", "NanocapEncoder", "NanocapImageProcessor"]

AutoConfig.register(NanocapConfig.model_type, NanocapConfig)
AutoModel.register(NanocapConfig, NanocapEncoder)
AutoImageProcessor.register(NanocapConfig, slow_image_processor_class=NanocapImageProcessor)

# `optimum` alone is a namespace that other packages may have made
if find_spec("optimum") and find_spec("optimum.exporters") and find_spec("optimum.exporters.onnx"):
    from nanocap.interop import optimum as _optimum  # noqa: F401  # registers on import
