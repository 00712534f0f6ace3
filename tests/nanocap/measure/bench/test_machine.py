"""What a machine tells of itself."""

from __future__ import annotations

import json
from dataclasses import asdict

from nanocap.cores import available_cores
from nanocap.measure.bench.machine import cpu_flags, cpu_model, describe_machine

SERVER = """processor\t: 0
model name\t: AMD EPYC 9755 128-Core Processor
flags\t\t: fpu avx2 fma avx512f avx512_vnni avx512_bf16 avx_vnni
processor\t: 1
model name\t: AMD EPYC 9755 128-Core Processor
flags\t\t: fpu avx2
"""
BOARD = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 asimddp
"""


def test_a_server() -> None:
    assert cpu_model(SERVER) == "AMD EPYC 9755 128-Core Processor"
    expected = ("avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16")
    assert cpu_flags(SERVER) == expected


def test_a_board() -> None:
    assert cpu_model(BOARD) is None
    assert cpu_flags(BOARD) == ("asimddp",)


def test_nothing_told() -> None:
    assert (cpu_model(""), cpu_flags("")) == (None, ())


def test_this_machine() -> None:
    machine = describe_machine()
    assert machine.cpu
    assert machine.cores == available_cores() >= 1
    assert {"python", "onnxruntime", "numpy", "pillow"} <= set(machine.versions)
    json.dumps(asdict(machine))
