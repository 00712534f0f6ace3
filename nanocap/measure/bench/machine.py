"""The machine that a figure was measured on: without it the figure says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nanocap.cores import available_cores

CPU_INFO = Path("/proc/cpuinfo")
BOARD = Path("/proc/device-tree/model")  # boards such as the Raspberry Pi
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
PACKAGES = ("onnxruntime", "numpy", "Pillow")

# Instructions that decide how fast int8 and bf16 run, as the kernel writes them.
FLAGS = (
    *("avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)


@dataclass(frozen=True)
class Machine:
    """A processor and what runs on it.

    Attributes:
        cpu: its model.
        cores: those that this process may use.
        flags: its instructions among `FLAGS`.
        governor: of the clock's frequency, where the system tells.
        load: mean number of running processes over the last minute, where the system tells;
            figures measured beside other work compare only as ratios within one run.
        system: the operating system.
        versions: of Python and the packages under the runtime, by name.
    """

    cpu: str
    cores: int
    flags: tuple[str, ...]
    governor: str | None
    load: float | None
    system: str
    versions: dict[str, str]


def describe_machine() -> Machine:
    """This machine, as far as it tells."""
    cpu_info = _text(CPU_INFO) or ""
    return Machine(
        cpu=cpu_model(cpu_info) or _text(BOARD) or _macos_model() or platform.processor() or "?",
        cores=available_cores(),
        flags=cpu_flags(cpu_info),
        governor=_text(GOVERNOR),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        system=platform.platform(),
        versions={"python": platform.python_version(), **_versions()},
    )


def cpu_model(cpu_info: str) -> str | None:
    """The processor's model in the text of `/proc/cpuinfo`; most ARM kernels write none."""
    return next(iter(_values(cpu_info, "model name")), None)


def cpu_flags(cpu_info: str) -> tuple[str, ...]:
    """Those of `FLAGS` in the text of `/proc/cpuinfo` (`flags` on x86, `Features` on ARM)."""
    lines = [*_values(cpu_info, "flags"), *_values(cpu_info, "Features")]
    known = set(lines[0].split()) if lines else set()
    return tuple(flag for flag in FLAGS if flag in known)


def _values(cpu_info: str, name: str) -> list[str]:
    pairs = (line.partition(":") for line in cpu_info.splitlines())
    return [value.strip() for key, _, value in pairs if key.strip() == name]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _macos_model() -> str | None:
    if platform.system() != "Darwin":
        return None
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package.lower()] = version(package)
        except PackageNotFoundError:  # such as a build of onnxruntime under another name
            continue
    return found
