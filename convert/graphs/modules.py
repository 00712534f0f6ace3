"""The parts of a bundle's two graphs as modules: what an exporter traces.

`begin` is the encoder with the start of a search behind it, `step` the decoder with a step of one.
Parts are apart because the encoder and the decoder are quantized, and the search is not.

Shapes: B images, K beams, L decoder layers, N memory tokens, T positions, D width, V ids, E words
of evidence. Of a
pruned student's keys and values D is what is left of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from nanocap.bundle.manifest import StateTensor
from nanocap.runtime.engines.onnx import NEW
from nanocap.student import Dimensions, Student
from nanocap.student.decoder import Decoder, DecoderLayer, Memory
from nanocap.student.evidence import Seen, has_said, with_copies
from nanocap.student.search import CONSTANT, Search, SearchState
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD

CACHES = ("keys", "values")
SEEN = ("cross_keys", "cross_values")  # what cross-attention keeps of a photo
TOLD = ("evidence", "certainty", "copy_keys")  # what an encoder with a concept head adds

EXAMPLE_PLACES = 5  # of a cache; any number but the lengths of other axes

# By argument; of a variable number of arguments a tuple, one entry each.
Shapes = dict[str, Any]


class Graph(nn.Module):
    """A module to be exported: the names of what goes in and what comes out, in their order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def shapes(self, axes: Mapping[str, dict[int, str]]) -> Shapes:
        """For tracing: the axes whose length is free, by argument of `forward`."""
        # DYNAMIC rather than named: rows = batch * beams is no dimension that torch.export can name
        return {name: dict.fromkeys(axes.get(name, ()), Dim.DYNAMIC) for name in self.inputs}


class EncoderGraph(Graph):
    """Pixels uint8 [B, S, S, 3] to `cross_keys` and `cross_values` [L, B, N, D].

    With a concept head also `evidence` int64 [B, E], `certainty` [B, E] and `copy_keys` [B, E, W].
    """

    inputs = ("pixels",)
    outputs: tuple[str, ...] = SEEN

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.encoder, self.decoder = student.encoder, student.decoder
        self.outputs = outputs_of(student)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        # Normalized inside the graph: a binding that forgot it, or did it twice, captions noise;
        # transposed while it is still bytes: a quarter of the memory traffic
        x_BCHW = (pixels.permute(0, 3, 1, 2).float() - PIXEL_MEAN) / PIXEL_STD
        return remembered(self.decoder, self.encoder(x_BCHW))


def outputs_of(student: Student) -> tuple[str, ...]:
    """Names of what `remembered` gives."""
    return (*SEEN, *TOLD) if student.dimensions.evidence else SEEN


def remembered(decoder: Decoder, seen: Seen) -> tuple[Tensor, ...]:
    """What a state keeps of photos, in the order of `outputs_of`."""
    memory = decoder.cross(seen)
    if decoder.copying is None:
        return memory.keys, memory.values
    return memory.keys, memory.values, seen.evidence, seen.certainty, memory.copy_keys


def decoded(decoder: Decoder, state: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """`logits`, written `keys` and `values` and, where words are copied, `copies`, of a state."""
    none = state["tokens"][:, :0]
    evidence, copy_keys = (state.get(name, none) for name in ("evidence", "copy_keys"))
    memory = Memory(state["cross_keys"], state["cross_values"], evidence, copy_keys)
    given = (state["tokens"], state["position"], memory, state["keys"], state["values"])
    logits, copies, keys, values = decoder.step(*given)
    return logits, keys, values, *((copies,) if decoder.copying else ())


class DecoderGraph(Graph):
    """`Decoder.step`, arranged for few graph nodes. Copying, where there is any, comes last.

    A step works on a handful of rows, so that its time is nodes and memory traffic rather than
    arithmetic. Four things differ from `Decoder.step`, and parity with it is checked at every
    export: the caches grow by a place a step, so that nothing is read that is not there yet; the
    rows are a matrix [B * K, D] (a linear layer is one Gemm with its bias); query, key and value
    are one product with the attention's scale folded in; and caches are split into layers, not
    indexed.
    """

    inputs: tuple[str, ...] = ("tokens", "position", *SEEN, *CACHES)
    outputs: tuple[str, ...] = ("logits", "written_keys", "written_values")

    def __init__(self, student: Student) -> None:
        super().__init__()
        decoder = student.decoder
        self.embedding, self.positions = decoder.embedding, decoder.positions
        self.norm, self.copy_query = decoder.norm, None
        if decoder.copying is not None:
            self.copy_query = decoder.copying.query
            self.inputs = (*self.inputs, "copy_keys")
            self.outputs = (*self.outputs, "copies")
        self.layers = nn.ModuleList(_StepLayer(layer, decoder) for layer in decoder.layers)

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        cross_keys: Tensor,
        cross_values: Tensor,
        keys: Tensor,
        values: Tensor,
        copy_keys: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """See `Decoder.step`; keys and values are [L, B * K, position, D]."""
        images, beams = tokens.shape
        x_RD = self.embedding(tokens.reshape(-1)) + self.positions.index_select(0, position)
        # [1, ...] slices: one Split a cache instead of a Gather and a Squeeze a layer
        caches = zip(
            *(torch.split(c, 1) for c in (cross_keys, cross_values, keys, values)), strict=True
        )
        new_keys, new_values = [], []
        for layer, (cross_key, cross_value, key, value) in zip(self.layers, caches, strict=True):
            x_RD, key, value = layer(x_RD, images, cross_key, cross_value, key, value)
            new_keys.append(key)
            new_values.append(value)
        x_RD = self.norm(x_RD)
        logits = nn.functional.linear(x_RD, self.embedding.weight).reshape(images, beams, -1)
        written = torch.cat(new_keys), torch.cat(new_values)
        if self.copy_query is None or copy_keys is None:
            return logits, *written
        asked = self.copy_query(x_RD).reshape(images, beams, -1)
        return logits, *written, asked @ copy_keys.transpose(1, 2)


class _StepLayer(nn.Module):
    """One decoder layer at one position, over rows R = B * K."""

    def __init__(self, layer: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        assert isinstance(layer, DecoderLayer)
        self.heads, widths = decoder.dimensions.heads, decoder.dimensions.widths
        self.width, self.cross_width = widths.decoder_attention, widths.cross_attention
        scale, cross_scale = (
            (width // self.heads) ** -0.5 for width in (self.width, self.cross_width)
        )
        self.norm_self, self.norm_cross, self.norm_mlp = (
            layer.norm_self,
            layer.norm_cross,
            layer.norm_mlp,
        )
        self.project = _stacked([(layer.query, scale), (layer.key, 1.0), (layer.value, 1.0)])
        self.cross_query = _stacked([(layer.cross_query, cross_scale)])
        self.out, self.cross_out, self.mlp = layer.out, layer.cross_out, layer.mlp

    def forward(
        self,
        x_RD: Tensor,
        images: int,
        cross_key: Tensor,
        cross_value: Tensor,
        past_key: Tensor,
        past_value: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Caches come and go as [1, R, T, D], cross-attention's as [1, B, N, D]."""
        projected = self.project(self.norm_self(x_RD)).reshape(1, -1, 3, self.width)
        query, key, value = projected.split(1, dim=2)  # [1, R, 1, D]
        key, value = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
        x_RD = x_RD + self.out(self._attend(query[0], key, value, self.width, single=True))
        query = self.cross_query(self.norm_cross(x_RD)).reshape(images, -1, self.cross_width)
        seen = self._attend(query, cross_key, cross_value, self.cross_width)
        x_RD = x_RD + self.cross_out(seen)
        return x_RD + self.mlp(self.norm_mlp(x_RD)), key, value

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, width: int, single: bool = False
    ) -> Tensor:
        """Scaled queries [G, Q, D] over keys [1, G, M, D], as rows [G * Q, D].

        Of a single query a group (self-attention), moving its heads is a mere reshape.
        """
        channels = width // self.heads
        split = (-1, key.shape[2], self.heads, channels)
        keys_GHCM = key.reshape(split).permute(0, 2, 3, 1)
        values_GHMC = value.reshape(split).transpose(1, 2)
        if single:
            weights = torch.softmax(query.reshape(-1, self.heads, 1, channels) @ keys_GHCM, 3)
            return (weights @ values_GHMC).reshape(-1, width)
        heads = query.reshape(query.shape[0], -1, self.heads, channels).transpose(1, 2)
        weights = torch.softmax(heads @ keys_GHCM, 3)
        return (weights @ values_GHMC).transpose(1, 2).reshape(-1, width)


def _stacked(parts: list[tuple[nn.Linear, float]]) -> nn.Linear:
    """Linear layers with one input as one layer, each scaled."""
    weight = torch.cat([linear.weight * scale for linear, scale in parts]).detach()
    stacked = nn.Linear(weight.shape[1], weight.shape[0])
    stacked.weight = nn.Parameter(weight)
    stacked.bias = nn.Parameter(
        torch.cat([linear.bias * scale for linear, scale in parts]).detach()
    )
    return stacked


class SearchBegin(Graph):
    """What begins a search, for the photos that `cross_keys` [L, B, N, D] is of: a state."""

    inputs = ("cross_keys", "beam_places", "quality", "length", "length_penalty")
    outputs = (*SearchState._fields, *CACHES)

    def __init__(self, sizes: Sizes, search: Search, places: int = 0) -> None:
        """`places`: that the caches have from the start, for a decoder whose caches do not grow."""
        super().__init__()
        self.search, self.sizes, self.places = search, sizes, places

    def forward(
        self,
        cross_keys: Tensor,
        beam_places: Tensor,
        quality: Tensor,
        length: Tensor,
        length_penalty: Tensor,
    ) -> tuple[Tensor, ...]:
        """Args: beam_places: int64 [K], 0 to K - 1; the others as in `Search.begin`."""
        images, beams, sizes = cross_keys.shape[1], beam_places.shape[0], self.sizes
        state = self.search.begin(images, beams, quality, length, length_penalty)
        shape = (sizes.layers, images * beams, self.places, sizes.cache_width)
        return (*state, torch.zeros(shape), torch.zeros(shape))


class SearchStep(Graph):
    """What takes a search a step further: the moving part of a state, by the decoder's outputs."""

    inputs: tuple[str, ...] = (*SearchState._fields, *DecoderGraph.outputs)
    outputs = tuple(
        f"{NEW}{name}" for name in (*SearchState._fields, *CACHES) if name not in CONSTANT
    )

    def __init__(self, search: Search, *, copies: bool = False) -> None:
        """`copies`: whether the decoder copies words of the evidence, too."""
        super().__init__()
        self.search = search
        if copies:
            self.inputs = (*self.inputs, "copies", "evidence")

    def forward(
        self,
        control: Tensor,
        penalty: Tensor,
        bias: Tensor,
        position: Tensor,
        tokens: Tensor,
        totals: Tensor,
        ids: Tensor,
        log_probabilities: Tensor,
        answer_scores: Tensor,
        answer_ids: Tensor,
        answer_log_probabilities: Tensor,
        going: Tensor,
        logits: Tensor,
        written_keys: Tensor,
        written_values: Tensor,
        copies: Tensor | None = None,
        evidence: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """See `Search.step`. (torch.export wants the arguments one by one.)"""
        state = SearchState(
            control,
            penalty,
            bias,
            position,
            tokens,
            totals,
            ids,
            log_probabilities,
            answer_scores,
            answer_ids,
            answer_log_probabilities,
            going,
        )
        if copies is not None and evidence is not None:
            logits = with_copies(logits, copies, evidence, has_said(ids, evidence))
        after, rows = self.search.step(state, logits)
        moved = after._asdict()
        return (
            *(moved[name] for name in SearchState._fields if name not in CONSTANT),
            written_keys.index_select(1, rows),
            written_values.index_select(1, rows),
        )


def state_tensors(
    sizes: Sizes, search: Search, places: int | str = "places"
) -> tuple[StateTensor, ...]:
    """The state between the two graphs, for the manifest; `places` is the caches' length."""
    longest = search.longest
    beams = ("images", "beams")
    cross = (sizes.layers, "images", sizes.memory_tokens, sizes.cross_width)
    told = ("images", sizes.evidence)
    cache = (sizes.layers, "rows", places, sizes.cache_width)
    shapes: dict[str, tuple[str, tuple[int | str, ...]]] = {
        **dict.fromkeys(SEEN, ("float32", cross)),
        "evidence": ("int64", told),
        "certainty": ("float32", told),
        "copy_keys": ("float32", (*told, sizes.width)),
        "control": ("int64", (1,)),
        "penalty": ("float32", (1,)),
        "bias": ("float32", (*beams, search.vocabulary)),
        "position": ("int64", (1,)),
        "tokens": ("int64", beams),
        "totals": ("float32", beams),
        "ids": ("int64", (*beams, longest)),
        "log_probabilities": ("float32", (*beams, longest)),
        "answer_scores": ("float32", beams),
        "answer_ids": ("int64", (*beams, longest)),
        "answer_log_probabilities": ("float32", (*beams, longest)),
        "going": ("bool", ("images",)),
        **dict.fromkeys(CACHES, ("float32", cache)),
    }
    constant = (*SEEN, *TOLD, *CONSTANT)
    return tuple(
        StateTensor(name, kind, shape, name in constant)
        for name, (kind, shape) in shapes.items()
        if sizes.evidence or name not in TOLD
    )


@dataclass(frozen=True)
class Sizes:
    """Shapes that both graphs share."""

    layers: int
    visual_tokens: int
    max_tokens: int
    cache_width: int
    cross_width: int
    image_size: int
    width: int = 0  # of what copying attends to
    evidence: int = 0  # words that can be copied

    @property
    def memory_tokens(self) -> int:
        """Tokens that cross-attention attends to."""
        return self.visual_tokens + self.evidence

    @classmethod
    def of(cls, dimensions: Dimensions) -> Sizes:
        """Those of a student."""
        return cls(
            dimensions.decoder_layers,
            dimensions.visual_tokens,
            dimensions.max_tokens,
            dimensions.widths.decoder_attention,
            dimensions.widths.cross_attention,
            dimensions.image_size,
            dimensions.width,
            dimensions.evidence,
        )

    def encoder_example(self, images: int) -> tuple[Tensor, ...]:
        """Inputs of `EncoderGraph`, for tracing."""
        return (torch.zeros(images, self.image_size, self.image_size, 3, dtype=torch.uint8),)

    def decoder_example(self, images: int, beams: int) -> tuple[Tensor, ...]:
        """Inputs of `DecoderGraph`, for tracing."""
        # each a tensor of its own: the exporter takes one tensor given twice for one input
        seen = (self.layers, images, self.memory_tokens, self.cross_width)
        past = (self.layers, images * beams, EXAMPLE_PLACES, self.cache_width)
        cross, cache = ([torch.zeros(shape) for _ in range(2)] for shape in (seen, past))
        tokens = torch.zeros(images, beams, dtype=torch.int64)
        told = [torch.zeros(images, self.evidence, self.width)] if self.evidence else []
        return (tokens, torch.zeros(1, dtype=torch.int64), *cross, *cache, *told)

    def begin_example(self, images: int, beams: int) -> tuple[Tensor, ...]:
        """Inputs of `SearchBegin`, for tracing."""
        cross = torch.zeros(self.layers, images, self.memory_tokens, self.cross_width)
        controls = (torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))
        return (cross, torch.arange(beams), *controls, torch.ones(1))


# Names of the axes whose length is free, by input or output and axis.
_IMAGES, _BY_BEAM = {1: "images"}, {0: "images", 1: "beams"}
_PAST, _WRITTEN = {1: "rows", 2: "places"}, {1: "rows", 2: "written"}
_NO_BEAM = ("control", "penalty", "position", "going")
AXES: dict[str, dict[int, str]] = {
    "pixels": {0: "images"},
    "beam_places": {0: "beams"},
    "logits": _BY_BEAM,
    "copies": _BY_BEAM,
    "going": {0: "images"},
    **{name: {0: "images"} for name in TOLD},
    **dict.fromkeys(SEEN, _IMAGES),
    **dict.fromkeys(CACHES, _PAST),
    **dict.fromkeys(("written_keys", "written_values"), _WRITTEN),
    **{name: _BY_BEAM for name in SearchState._fields if name not in _NO_BEAM},
}
AXES |= {f"{NEW}{name}": axes for name, axes in AXES.items()}
AXES |= {f"{NEW}{name}": _WRITTEN for name in CACHES}
# The decoder takes any number of visual tokens: encoders of several budgets share it.
DECODER_AXES = AXES | {name: _IMAGES | {2: "memory_tokens"} for name in SEEN}
