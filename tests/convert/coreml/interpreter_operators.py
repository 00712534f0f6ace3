"""The operators of MIL in torch, written from its documentation; one that is missing is an error.

Each function takes the inputs by MIL's names: tensors are float32, int64 or bool (see
`interpreter_values`), texts are `str`. What the file says of an output's type is done by the
interpreter. Source: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def conv(
    x: Tensor,
    weight: Tensor,
    strides: Tensor,
    pad_type: str,
    pad: Tensor,
    dilations: Tensor,
    groups: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    assert pad_type in ("valid", "custom"), pad_type
    if pad_type == "custom":
        top, bottom, left, right = pad.tolist()
        x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, bias, strides.tolist(), 0, dilations.tolist(), groups=int(groups))


def constexpr_lut_to_dense(indices: Tensor, lut: Tensor, shape: Tensor) -> Tensor:
    bits = len(lut).bit_length() - 1
    assert len(lut) == 1 << bits
    packed = indices.numpy().astype(np.uint8)
    count = int(shape.prod())
    assert len(packed) == -(-bits * count // 8)
    ones = np.unpackbits(packed, bitorder="little")[: bits * count].reshape(count, bits)
    places = ones.astype(np.int64) @ (1 << np.arange(bits))
    return lut[torch.from_numpy(places)].reshape(shape.tolist())


def matmul(x: Tensor, y: Tensor, transpose_x: Any = False, transpose_y: Any = False) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def layer_norm(
    x: Tensor,
    axes: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    last = sorted(axis % x.dim() for axis in axes.tolist())
    assert last == list(range(x.dim() - len(last), x.dim()))
    return F.layer_norm(x, x.shape[last[0] :], gamma, beta, float(epsilon))


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    return F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])


def gather(
    x: Tensor,
    indices: Tensor,
    axis: Tensor,
    batch_dims: Tensor | int = 0,
    validate_indices: Tensor | bool = False,
) -> Tensor:
    assert int(batch_dims) == 0
    place = int(axis) % x.dim()
    rows = x.index_select(place, _in_range(indices, x.shape[place]).reshape(-1))
    return rows.reshape(*x.shape[:place], *indices.shape, *x.shape[place + 1 :])


def _in_range(indices: Tensor, length: int) -> Tensor:
    """`validate_indices` is never asked for: what lies outside is undefined."""
    assert int(indices.min()) >= 0
    assert int(indices.max()) < length
    return indices


def gather_along_axis(
    x: Tensor, indices: Tensor, axis: Tensor, validate_indices: Tensor | bool = False
) -> Tensor:
    place = int(axis) % x.dim()
    others = [size for other, size in enumerate(x.shape) if other != place]
    assert others == [size for other, size in enumerate(indices.shape) if other != place]
    return x.gather(place, _in_range(indices, x.shape[place]))


def scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: Tensor,
    mode: str = "add",
    validate_indices: Tensor | bool = False,
) -> Tensor:
    assert mode == "add"
    place = int(axis) % data.dim()
    return data.scatter_add(place, _in_range(indices, data.shape[place]), updates)


def topk(
    x: Tensor,
    k: Tensor,
    axis: Tensor,
    ascending: Any,
    sort: Any,
    return_indices: Any,
    output_indices_dtype: str,
) -> tuple[Tensor, Tensor]:
    assert sort
    assert return_indices
    assert output_indices_dtype in ("int32", "uint16")
    # of equal values the last, where eager takes another: no caption may hang on it
    place = int(axis) % x.dim()
    turned = x.flip(place).sort(dim=place, descending=not ascending, stable=True)
    values, places = (each.narrow(place, 0, int(k)) for each in turned)
    return values, x.shape[place] - 1 - places


def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    def mask(given: Tensor | None) -> list[bool]:
        return [False] * x.dim() if given is None else given.tolist()

    steps = [1] * x.dim() if stride is None else stride.tolist()
    index: list[int | slice] = []
    for start, free_start, stop, free_stop, step, squeezed in zip(
        begin.tolist(), mask(begin_mask), end.tolist(), mask(end_mask), steps, mask(squeeze_mask),
        strict=True,
    ):  # fmt: skip
        part = slice(None if free_start else start, None if free_stop else stop, step)
        index.append(start if squeezed else part)
    return x[tuple(index)]


def pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Any = 0.0) -> Tensor:
    assert mode == "constant"
    pairs = pad.reshape(-1, 2).tolist()  # of the last axes, the first of them first
    return F.pad(x, [side for pair in reversed(pairs) for side in pair], value=float(constant_val))


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    asked = shape.tolist()
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(asked)])


def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: Tensor, scale_factor_width: Tensor
) -> Tensor:
    high, wide = float(scale_factor_height), float(scale_factor_width)
    assert high.is_integer()
    assert wide.is_integer()
    return x.repeat_interleave(int(high), dim=-2).repeat_interleave(int(wide), dim=-1)


def reduce_argmax(x: Tensor, axis: Tensor, keep_dims: Any, output_dtype: str = "int32") -> Tensor:
    # numpy's and not torch's: of equal values the first, as eager has it on a CPU
    found = torch.from_numpy(np.argmax(x.numpy(), axis=int(axis)))
    return found.unsqueeze(int(axis)) if keep_dims else found


def cast(x: Tensor, dtype: str) -> Tensor:
    if dtype in ("fp16", "fp32"):
        return x.float()
    return x != 0 if dtype == "bool" else x.long()  # towards zero


def concat(values: list[Tensor], axis: Tensor, interleave: Any = False) -> Tensor:
    place = int(axis) % values[0].dim()
    if interleave:  # one of each in turn
        return torch.stack(values, place + 1).flatten(place, place + 1)
    return torch.cat(values, place)


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(axes.tolist())


def _reduction(compute: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[..., Tensor]:
    def reduce(x: Tensor, axes: Tensor | None = None, keep_dims: Any = False) -> Tensor:
        every = list(range(x.dim())) if axes is None else axes.tolist()
        return compute(x, every, bool(keep_dims))

    return reduce


OPERATORS: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "add": lambda x, y: x + y,
    "cast": cast,
    "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
    "concat": concat,
    "constexpr_lut_to_dense": constexpr_lut_to_dense,
    "conv": conv,
    "equal": lambda x, y: x == y,
    "exp": lambda x: x.exp(),
    "expand_dims": expand_dims,
    "fill_like": lambda ref_tensor, value: torch.full_like(ref_tensor, value.item()).to(
        value.dtype
    ),
    "floor_div": lambda x, y: x.div(y, rounding_mode="floor"),
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "gelu": gelu,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
    "identity": lambda x: x,
    "layer_norm": layer_norm,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "log": lambda x, epsilon=0.0: (x + float(epsilon)).log(),
    "logical_and": lambda x, y: x & y,
    "logical_not": lambda x: ~x,
    "logical_or": lambda x, y: x | y,
    "matmul": matmul,
    "maximum": lambda x, y: torch.maximum(x, y),
    "minimum": lambda x, y: torch.minimum(x, y),
    "mul": lambda x, y: x * y,
    "pad": pad,
    "pow": lambda x, y: x**y,
    "real_div": lambda x, y: x / y,
    "reduce_argmax": reduce_argmax,
    "reduce_l2_norm": _reduction(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "reduce_max": _reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "reduce_min": _reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "reduce_mean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "reduce_sum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "relu": lambda x: x.relu(),
    "relu6": lambda x: F.relu6(x),
    "reshape": reshape,
    "scatter_along_axis": scatter_along_axis,
    "select": lambda cond, a, b: torch.where(cond.bool(), a, b),
    "sigmoid": lambda x: x.sigmoid(),
    "slice_by_index": slice_by_index,
    "softmax": lambda x, axis: x.softmax(int(axis)),
    "softplus": F.softplus,
    "sqrt": lambda x: x.sqrt(),
    "squeeze": squeeze,
    "stack": lambda values, axis: torch.stack(values, int(axis)),
    "sub": lambda x, y: x - y,
    "tile": lambda x, reps: x.repeat(reps.tolist()),
    "topk": topk,
    "transpose": lambda x, perm: x.permute(perm.tolist()),
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}
