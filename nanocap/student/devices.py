"""What this machine computes with, and which arithmetic pays on it."""

from __future__ import annotations

import ctypes
import os
import platform

import torch
from accelerate import Accelerator

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of the GNU C library
NEVER = -1  # the largest number of bytes


def fastest() -> torch.device:
    """CUDA where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mixed_precision(choice: str) -> str:
    """Accelerate's name for the precision: `bf16` where the processor multiplies it, else `no`."""
    if choice == "auto":
        has = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else cpu_has_bf16()
        return "bf16" if has else "no"
    return {"bf16": "bf16", "fp32": "no"}[choice]


def accelerator_of(precision: str) -> Accelerator:
    """Accelerate for a choice of precision; imported here, so that its torch finds our settings."""
    return Accelerator(mixed_precision=mixed_precision(precision))


def use_threads(count: int | None) -> None:
    """Have torch compute with so many threads; None leaves it its own choice, mostly one a core."""
    if count is not None:
        torch.set_num_threads(count)


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself; else it takes two to seventy times as long."""
    supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return supported
    # there mkldnn says so of every processor with AVX-512, and imitates bf16 where it lacks it
    return supported and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def keep_freed_memory() -> None:
    """Have this process keep for its next tensors the memory that it frees, where it can.

    The GNU C library gives large blocks back at once, and the kernel clears every page of the next:
    up to two thirds of the time of a convolution without gradients.
    """
    mallopt = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
