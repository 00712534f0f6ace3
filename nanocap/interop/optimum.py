"""How Optimum exports the encoder to ONNX: `optimum-cli export onnx --trust-remote-code`."""

from __future__ import annotations

from optimum.exporters.onnx.config import VisionOnnxConfig
from optimum.exporters.tasks import TasksManager
from optimum.utils import NormalizedVisionConfig


@TasksManager.create_register("onnx", overwrite_existing=True)("nanocap", "feature-extraction")
class NanocapOnnxConfig(VisionOnnxConfig):  # type: ignore[misc]  # optimum is not followed
    """The encoder's graph: normalized inside, of the student's own image size."""

    NORMALIZED_CONFIG_CLASS = NormalizedVisionConfig

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Names of the free axes by input."""
        return {"pixel_values": {0: "batch_size"}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Names of the free axes by output."""
        return {"last_hidden_state": {0: "batch_size"}}
