"""Where a captioner looked when it chose each piece of a caption, read off the files that ship.

The caption's own pieces are fed to the decoder again, and the weights of its cross-attention read
at the step that chose each. Weights on visual tokens are spread over the places of the photo's
grid by the encoder's own assignments of this very photo, so that they still sum to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from nanocap.bundle import Bundle
from nanocap.bundle.manifest import Artifact
from nanocap.cores import available_cores
from nanocap.errors import EngineError, MissingExtraError
from nanocap.image.image import load_image
from nanocap.image.source import ImageSource
from nanocap.measure.bench.graphs import (
    controls,
    import_onnx,
    run_tensors,
    with_outputs,
)
from nanocap.measure.report.probes import Floats, NoAttention, assignments, softmaxes
from nanocap.runtime.engines import Engine, load_engine
from nanocap.runtime.engines.onnx import begin_feeds
from nanocap.runtime.engines.state import State

STRIDE = 16  # pixels a side of one place, as in `nanocap.student.dimensions`
TOLERANCE = 1e-3


class Attention:
    """The attention of one artifact.

    Args:
        bundle: an opened bundle.
        artifact: its name.

    Raises:
        BundleError: the bundle is altered or unsafe.
        NoAttention: the artifact does not tell.
    """

    def __init__(self, bundle: Bundle, artifact: str) -> None:
        self.manifest = bundle.manifest
        chosen = next(one for one in self.manifest.artifacts if one.name == artifact)
        if chosen.backend != "onnx":
            raise NoAttention(f"artifact {artifact}: only ONNX graphs tell, not {chosen.backend}")
        try:
            self._engine = self._open(chosen, bundle.load(chosen))
        except NoAttention as error:
            raise NoAttention(f"artifact {artifact}: {error}") from None
        except (EngineError, MissingExtraError) as error:
            raise NoAttention(str(error)) from None

    def _open(self, artifact: Artifact, files: dict[str, bytes]) -> Engine:
        """The artifact's engine, in whose states the inner tensors stand beside its own."""
        sizes, size, tokens = self.manifest.sizes, self.manifest.image.size, artifact.visual_tokens
        self.tokens = tokens
        self.side = size // STRIDE
        load = import_onnx().load_model_from_string
        begin, step = (load(files[artifact.files[role]]) for role in ("begin", "step"))
        start = np.zeros((1, size, size, 3), np.uint8), 1, *controls(self.manifest)
        state = load_engine(artifact, files, available_cores()).begin(*start)
        tensors = run_tensors(begin, begin_feeds(*start))
        self._matrices = assignments(begin, tensors, self.side**2, tokens, sizes.width)
        memory = state["cross_keys"].shape[2]  # words of evidence stand behind the visual tokens
        feeds = {value.name: state[value.name] for value in step.graph.input}
        self._layers = softmaxes(step, run_tensors(step, feeds), memory, sizes.layers)
        wider = {
            artifact.files["begin"]: with_outputs(begin, self._matrices),
            artifact.files["step"]: with_outputs(step, self._layers),
        }
        return load_engine(artifact, wider, available_cores())

    def maps(self, photo: ImageSource, ids: Sequence[int], length: str | None = None) -> Floats:
        """What was looked at when each of `ids` was chosen.

        Args:
            ids: of a caption, without control tokens and without the end.
            length: that it was asked for with; default: the bundle's.
        Returns:
            [pieces, side, side], each map of non-negative weights that sum to one; mean over the
            layers and heads of the decoder.
        Raises:
            ImageError: the photo cannot be read.
            NoAttention: the encoder's tensors are no assignments.
        """
        pixels = load_image(photo, self.manifest.image)[None]
        begun = controls(self.manifest, length)
        state = self._engine.begin(pixels, 1, *begun)
        matrices = [state[name] for name in self._matrices]
        for matrix in matrices:
            if matrix.min() < 0 or np.abs(matrix.sum(-1) - 1).max() > TOLERANCE:
                raise NoAttention("what its encoder multiplies the tokens with is no mean of them")
        start = np.eye(self.side**2, dtype=np.float32)
        spread = reduce(lambda known, matrix: matrix[0] @ known, matrices, start)  # [N, places]
        maps: Floats = self._weights(state, begun[:2], ids) @ spread
        return maps.reshape(-1, self.side, self.side)

    def _weights(self, state: State, prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        """Weights [pieces, visual tokens]."""
        rows = []
        # the step that is fed a piece chooses the next: the last piece need not be fed
        for position, token in enumerate([*prompt, *ids][:-1]):
            state = self._engine.step({**state, "tokens": np.array([[token]])})
            if position >= len(prompt) - 1:
                layers = [state[name].mean(axis=(0, 1, 2)) for name in self._layers]
                seen = np.mean(layers, axis=0)[: self.tokens]
                rows.append(seen / seen.sum())
        return np.stack(rows) if rows else np.zeros((0, self.tokens), np.float32)
