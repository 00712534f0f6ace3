"""The trainer of a scorer: one stage over cached maps, resumable with the same losses."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from nanocap.distill.data.batches import Schedule
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.feature_cache import Maps
from nanocap.distill.data.scorer_texts import self_contained
from nanocap.distill.scorer.monitor import RetrievalMonitor
from nanocap.distill.scorer.objective import draw, objective
from nanocap.distill.scorer.recipe import ScorerRecipe, Training
from nanocap.distill.training.checkpoint import (
    Position,
    load_checkpoint,
    read_position,
    save_checkpoint,
)
from nanocap.distill.training.journal import Journal
from nanocap.distill.training.run import Start
from nanocap.distill.training.trainer import learning_rate
from nanocap.errors import RecipeError
from nanocap.progress import Progress
from nanocap.scorer import Scorer
from nanocap.student import Student
from nanocap.student.controls import PREFIX
from nanocap.student.devices import fastest


@dataclass(frozen=True)
class ScorerRun:
    """A run's folder and what it is made from."""

    recipe: ScorerRecipe
    corpus: Corpus
    start: Start
    out: Path
    cache: Path

    @property
    def finished(self) -> Path:
        """The scorer that the run ends with."""
        return self.out / "scorer.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Where the run stands."""
        return self.out / "checkpoint.safetensors"

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the numbers."""
        return self.recipe.fingerprint(self.start.digest)


def train_scorer(run: ScorerRun, narrow: bool) -> Path:
    """Train, or go on, until the recipe's last step; returns the path of the scorer.

    Args:
        narrow: whether the towers work in bfloat16.
    Raises:
        RecipeError: the folder holds a run of another recipe.
        DataError: the checkpoint is damaged.
    """
    if run.finished.exists():
        _, header = Scorer.load(run.finished)
        _same(run, run.finished, header.get("fingerprint"))
        return run.finished
    position = read_position(run.checkpoint)
    if position is not None:
        _same(run, run.checkpoint, position.fingerprint)
    run.out.mkdir(parents=True, exist_ok=True)
    _train(run, narrow, position)
    return run.finished


def _same(run: ScorerRun, path: Path, fingerprint: str | None) -> None:
    if fingerprint != run.fingerprint:
        raise RecipeError(
            f"{path}: made by another recipe; choose another --out, or delete it to redo it"
        )


def _train(run: ScorerRun, narrow: bool, position: Position | None) -> None:
    training, recipe = run.recipe.training, run.recipe.captioner()
    device = fastest()
    student, _ = Student.load(run.start.path)
    schedule = Schedule(recipe, run.corpus, 0)
    feed = Maps(run.corpus, schedule, student, training.views, run.cache)
    torch.manual_seed(recipe.seed)
    scorer = Scorer(run.recipe.dimensions(student.dimensions), training.dropout)
    scorer.start_from(student)
    scorer.to(device).train()
    ids = run.corpus.encoded(scorer.dimensions.max_pieces + PREFIX)
    optimizer = torch.optim.AdamW(_groups(scorer, training), betas=(0.9, 0.98), fused=True)
    average = {name: tensor.detach().clone() for name, tensor in scorer.state_dict().items()}
    first = 0
    # a checkpoint is of any module that has dimensions, a scorer as well as a student
    as_student = cast(Any, scorer)
    if position is not None:
        load_checkpoint(run.checkpoint, as_student, average, optimizer)
        first = position.step
    journal = Journal(run.out, 0, first)
    monitor = RetrievalMonitor(run.corpus, ids, recipe.monitor, scorer.dimensions)
    shown = Progress(training.steps, "training the scorer", plain=True)
    shown.skip(first)
    for step in shown.over(range(first, training.steps)):
        began = time.perf_counter()
        rate = learning_rate(recipe.stages[0], step)
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * rate
        photos = schedule.photos(step).tolist()
        torch.manual_seed(int(schedule.random(step, 0, 2).integers(2**62)))
        inputs = feed.inputs(step, photos, range(len(photos))).to(device)
        texts = draw(ids, schedule, step, photos, training).to(device)
        share = step / training.steps
        loss, terms = objective(scorer, inputs, texts, training, share, narrow)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(scorer.parameters(), training.clip)
        optimizer.step()
        optimizer.zero_grad()
        _average(average, scorer, training.ema, step)
        done = step + 1
        metrics = {"loss": float(loss.detach()), **terms}
        shown.note = f"loss {metrics['loss']:.3f}"
        if training.evaluate and (done % training.evaluate == 0 or done == training.steps):
            metrics |= monitor.look(average)
        seconds = round(time.perf_counter() - began, 3)
        journal.add(stage=0, step=step, **metrics, lr=rate * training.lr, seconds=seconds)
        if done % training.checkpoint == 0 and done < training.steps:
            here = Position(0, done, run.fingerprint)
            save_checkpoint(run.checkpoint, here, as_student, average, optimizer)
            journal.draw()
    scorer.load_state_dict(average)
    scorer.cpu().save(run.finished, _metadata(run, scorer.dimensions.max_pieces))
    run.checkpoint.unlink(missing_ok=True)
    journal.draw()


def _groups(scorer: Scorer, training: Training) -> list[dict[str, object]]:
    image, trunk = scorer.image, scorer.image.encoder.trunk
    of_trunk = set(map(id, trunk.parameters()))
    named: dict[str, list[nn.Parameter]] = {
        "heads": [*image.pool.parameters(), *image.match.parameters(), scorer.log_scales],
        "text": list(scorer.text.parameters()),
        "encoder": [p for p in image.encoder.parameters() if id(p) not in of_trunk],
        "upper": trunk.upper_parameters(),
    }
    scorer.requires_grad_(False)
    groups: list[dict[str, object]] = []
    for name in training.train:
        base = training.trunk_lr if name in ("encoder", "upper") else training.lr
        # weight decay is for matrices: norms, biases and scales are left alone
        for decays in (True, False):
            chosen = [p for p in named[name] if (p.dim() > 1) == decays]
            for parameter in chosen:
                parameter.requires_grad_(True)
            decay = training.weight_decay if decays else 0.0
            groups.append({"params": chosen, "base": base, "lr": base, "weight_decay": decay})
    return groups


@torch.no_grad()
def _average(average: dict[str, Tensor], scorer: Scorer, decay: float, step: int) -> None:
    """Move the averaged weights; early on they follow more closely."""
    decay = min(decay, (1 + step) / (10 + step))
    theirs = scorer.state_dict()
    for name, tensor in average.items():
        tensor.lerp_(theirs[name], 1 - decay)


def _metadata(run: ScorerRun, max_pieces: int) -> dict[str, str]:
    recipe = run.recipe
    training = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "steps": recipe.training.steps,
        "data": [
            {"name": source.name, "licence": source.licence or "unknown"}
            for source in recipe.data.sources
        ],
        "start": run.start.training,
    }
    return {
        "tokenizer": self_contained(run.corpus.tokenizer, max_pieces).to_str(),
        "training": json.dumps(training),
        "fingerprint": run.fingerprint,
    }
