"""The trainer: stages one after the other, resumable at any checkpoint with the same losses."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nanocap.distill.data.batches import CaptionTable, Schedule
from nanocap.distill.data.feature_cache import Maps, Photos
from nanocap.distill.pruning.axes import find_axes
from nanocap.distill.pruning.budget import check_keep
from nanocap.distill.pruning.masks import Masks
from nanocap.distill.pruning.slicing import slice_student
from nanocap.distill.recipes.recipe import FROM_TEACHERS, Stage
from nanocap.distill.training import pretrained_trunks
from nanocap.distill.training.checkpoint import (
    Position,
    load_checkpoint,
    read_position,
    save_checkpoint,
)
from nanocap.distill.training.journal import Journal
from nanocap.distill.training.losses import CaptionLoss, Guidance, Teaching
from nanocap.distill.training.monitor import Best, Floor, Monitor
from nanocap.distill.training.naming import Names, found_head, look_for_concepts
from nanocap.distill.training.run import Run
from nanocap.distill.training.stages import STAGES, Context
from nanocap.distill.training.teacher_logits_cache import Lessons
from nanocap.distill.training.text_evidence import TextEvidence
from nanocap.distill.training.wording import reword
from nanocap.errors import RecipeError
from nanocap.progress import Progress
from nanocap.student import Student

WORDING = "wording"  # the kind of stage that fits the last bias
GROUPS = ("decoder", "encoder", "concepts", "upper", "lower")  # of parameters


def train(run: Run, accelerator: Accelerator) -> Path:
    """Do every stage that is not done yet; returns the path of the finished student.

    Raises:
        RecipeError: the folder holds a run of another recipe, or a stage's kind or a group that it
            trains is unknown.
        OptionError: a stage is to keep less than can be kept.
    """
    for stage in run.recipe.stages:  # now rather than hours later
        _check(stage)
    student = _first_student(run)
    for stage in run.recipe.stages:
        check_keep(find_axes(student.dimensions), stage.keep)
    run.out.mkdir(parents=True, exist_ok=True)
    table = CaptionTable(run.recipe, run.corpus, student.dimensions.max_tokens)
    for index in range(len(run.recipe.stages)):
        path = run.finished(index)
        if path.exists():
            student, header = Student.load(path)
            if header.get("fingerprint") != run.fingerprint(index):
                raise RecipeError(
                    f"{path}: made by another recipe; choose another --out, or delete it to redo it"
                )
            continue
        if run.recipe.stages[index].kind == WORDING:
            _reword_stage(run, accelerator, student, index)
        else:
            _train_stage(run, accelerator, student, table, index)
        accelerator.wait_for_everyone()
        student, _ = Student.load(path)
    final, metadata = run.out / "student.safetensors", run.metadata()
    # a finished student is left alone, to the byte: others may have been made from it
    saved = final.exists() and metadata.items() <= Student.load(final)[1].items()
    if accelerator.is_main_process and not saved:
        student.save(final, metadata)
    return final


def _check(stage: Stage) -> None:
    known = ", ".join((*STAGES, WORDING))
    if stage.kind not in (*STAGES, WORDING):
        raise RecipeError(
            f"stage {stage.name!r} is of unknown kind {stage.kind!r}; known are {known}"
        )
    unknown = sorted(set(stage.train) - set(GROUPS))
    if unknown or not stage.train:
        what = repr(unknown[0]) if unknown else "nothing"
        raise RecipeError(f"stage {stage.name!r} trains {what}; known are {', '.join(GROUPS)}")


def _first_student(run: Run) -> Student:
    recipe = run.recipe
    torch.manual_seed(recipe.seed)
    if run.start is not None:
        student = run.start.student(recipe.dimensions(), run.corpus.tokenizer)
    else:
        student = Student(recipe.dimensions())
    if recipe.imagenet and (run.start is None or recipe.fresh):
        trunk, name = student.encoder.trunk, student.dimensions.trunk
        pretrained_trunks.load_into(trunk, name, recipe.imagenet, run.beside)
    new = run.start is None or not run.start.has_concepts
    if student.dimensions.evidence and new:
        found_head(student, run.corpus, recipe.imagenet)
    return student


def _reword_stage(run: Run, accelerator: Accelerator, student: Student, index: int) -> None:
    """A stage without gradients, whose steps are rounds; killed, it begins anew: it is short."""
    if accelerator.is_main_process:
        recipe, stage = run.recipe, run.recipe.stages[index]
        sources = recipe.monitored or tuple(source.name for source in recipe.data.sources)
        reword(student, run.corpus, sources, stage.steps)
        student.save(run.finished(index), {"fingerprint": run.fingerprint(index)})


def _train_stage(
    run: Run, accelerator: Accelerator, student: Student, table: CaptionTable, index: int
) -> None:
    stage, device = run.recipe.stages[index], accelerator.device
    schedule = Schedule(run.recipe, run.corpus, index)
    feed: Photos | Maps
    if "lower" in stage.train:
        feed = Photos(run.corpus, schedule, student.dimensions.image_size)
    else:
        with accelerator.main_process_first():
            feed = Maps(run.corpus, schedule, student, stage.views, run.cache)
    student = student.to(device).train()
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = stage.dropout
    optimizer = torch.optim.AdamW(_groups(student, stage), betas=(0.9, 0.98), fused=True)
    average = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
    origin = {name: tensor.clone() for name, tensor in average.items()} if stage.blend < 1 else None
    # behind the optimizer and the average, which have no part in them; part of the checkpoint
    masks = Masks(student, stage.keep) if stage.keep < 1 else None
    names = Names(run.corpus, run.recipe, stage.naming).to(device) if stage.naming else None
    texts = None
    if stage.texts or stage.renamed:  # as the stage begins: so that a resumed one draws the same
        found = look_for_concepts(run.corpus, student, feed)
        texts = TextEvidence(run.corpus, found, student.dimensions.max_tokens, stage.swapped)
    first = 0
    position = read_position(run.checkpoint)
    if position is not None and position.stage == index:
        if position.fingerprint != run.fingerprint(index):
            raise RecipeError(
                f"{run.checkpoint}: made by another recipe; choose another --out, or delete it"
            )
        load_checkpoint(run.checkpoint, student, average, optimizer)
        first = position.step
    guides = run.guides if any(getattr(stage, name) for name in FROM_TEACHERS) else None
    lessons: Lessons | None = None
    if guides is not None and feed.from_maps:
        with accelerator.main_process_first(), accelerator.autocast():
            of_run = (stage.views, run.cache, device)
            lessons = Lessons(run.corpus, schedule, table, guides, *of_run)
    model, optimizer = accelerator.prepare(CaptionLoss(student), optimizer)
    kind = STAGES[stage.kind](Context(stage, run.corpus, table, schedule, student, run.scorer))
    journal = Journal(run.out, index, first) if accelerator.is_main_process else None
    monitor = Monitor(run.corpus, run.recipe.monitored, student.dimensions)
    floor = Floor(stage.floor, run.faithful) if stage.floor else None
    best = Best(run.best) if stage.best else None
    if floor is not None and first == 0 and journal is not None:
        floor.holds(monitor.look(average, facts=True)["faithful"], average)
    rank, world = accelerator.process_index, accelerator.num_processes
    shown = Progress(stage.steps, f"training {stage.name}", plain=True)
    shown.skip(first)
    steps = range(first, stage.steps)
    for step in shown.over(steps) if accelerator.is_main_process else steps:
        began = time.perf_counter()
        rate = learning_rate(stage, step)
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * rate
        if masks is not None:
            masks.shrink(step, stage.steps)
        places = list(range(stage.batch))[rank::world]
        chosen = schedule.photos(step)
        photos = [int(chosen[place]) for place in places]
        # one seed a step and process: dropout and sampling are the same after a resume
        torch.manual_seed(int(schedule.random(step, rank, 2).integers(2**62)))
        with accelerator.autocast():
            inputs = feed.inputs(step, photos, places).to(device)
            target = kind.target(step, photos, places, inputs, feed.from_maps)
            told = None
            if texts is not None:
                share, renamed = (
                    len(range(count)[rank::world]) for count in (stage.texts, stage.renamed)
                )
                drawn = schedule.random(step, rank, 3)
                rows, told = texts.rows(share, renamed, photos, drawn)
                target, told = target.and_rows(rows, len(photos)), told.to(device)
            naming = None if names is None else names.of(photos, inputs, feed.from_maps)
            guidance = None
            if guides is not None:
                teaching: Teaching = (
                    guides.watch(inputs)
                    if lessons is None
                    else lessons.look(step, photos, places, target.captions).to(device)
                )
                weights = (stage.distillation, stage.imitation, stage.relation)
                guidance = Guidance(teaching, *weights)
            total = model(
                inputs,
                feed.from_maps,
                target.captions.to(device),
                target.smoothing,
                target.advantage.to(device),
                guidance,
                told,
                naming,
            )
        count = accelerator.reduce(torch.tensor(float(target.count), device=device), "sum")
        loss = total * world / count  # the mean over processes is the mean over all tokens
        accelerator.backward(loss)
        if masks is not None:
            masks.collect()
        accelerator.clip_grad_norm_(student.parameters(), stage.clip)
        optimizer.step()
        optimizer.zero_grad()
        _average(average, student, stage.ema, step)
        mean_loss = float(accelerator.reduce(loss.detach(), "mean"))
        shown.note = f"loss {mean_loss:.3f}"
        done = step + 1
        metrics = {"loss": mean_loss, **target.metrics}
        looks = bool(stage.evaluate) and (done % stage.evaluate == 0 or done == stage.steps)
        fallen = False
        if journal is not None:
            if looks:
                shown_as = average if masks is None else masks.fold(average)
                metrics |= monitor.look(shown_as, facts=floor is not None)
                fallen = floor is not None and not floor.holds(metrics["faithful"], average)
                if best is not None:
                    best.offer(metrics["cider"], average)
            seconds = round(time.perf_counter() - began, 3)
            journal.add(stage=index, step=step, **metrics, lr=rate * stage.lr, seconds=seconds)
            if done % stage.checkpoint == 0 and done < stage.steps:
                here = Position(index, done, run.fingerprint(index))
                save_checkpoint(run.checkpoint, here, student, average, optimizer.optimizer)
                journal.draw()
        if floor is not None and looks and accelerator.reduce(torch.tensor(float(fallen)), "sum"):
            break
    if journal is not None:
        if floor is not None:
            floor.restore(average)
        if best is not None:
            best.restore(average)
        if origin is not None:
            average = _blend(origin, average, stage.blend)
        if stage.start_trunk:
            assert run.start is not None
            trunk = {name: tensor.to(device) for name, tensor in run.start.upper_trunk().items()}
            average = _blend(average | trunk, average, 1 - stage.start_trunk)
        if masks is None:
            student.load_state_dict(average)
        else:
            student = slice_student(student.dimensions, average, masks.kept())
        student.cpu().save(run.finished(index), {"fingerprint": run.fingerprint(index)})
        run.checkpoint.unlink(missing_ok=True)
        for kept in (run.faithful, run.best):
            kept.unlink(missing_ok=True)
        journal.draw()


def learning_rate(stage: Stage, step: int) -> float:
    """Share of the peak rate: linear warm-up, then a cosine down to `final_lr`."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.final_lr + (1 - stage.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


def _groups(student: Student, stage: Stage) -> list[dict[str, object]]:
    trunk = student.encoder.trunk
    head = student.encoder.concepts
    concepts = [] if head is None else list(head.parameters())
    apart = {id(parameter) for parameter in (*trunk.parameters(), *concepts)}
    named = {
        "decoder": list(student.decoder.parameters()),
        "encoder": [p for p in student.encoder.parameters() if id(p) not in apart],
        "concepts": concepts,
        "upper": trunk.upper_parameters(),
        "lower": trunk.lower_parameters(),
    }
    groups: list[dict[str, object]] = []
    for name, parameters in named.items():
        for parameter in parameters:
            parameter.requires_grad_(name in stage.train)
        if name not in stage.train:
            continue
        base = stage.trunk_lr if name in ("upper", "lower") else stage.lr
        # weight decay is for matrices: norms, biases and positions are left alone
        for decays in (True, False):
            chosen = [p for p in parameters if (p.dim() > 1) == decays]
            decay = stage.weight_decay if decays else 0.0
            if chosen:
                groups.append({"params": chosen, "base": base, "lr": base, "weight_decay": decay})
    return groups


def _blend(began: dict[str, Tensor], ended: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights between those that were there before and those that a stage came to.

    Wortsman et al., "Robust fine-tuning of zero-shot models" (2022); of two runs from the same
    weights, "Model soups" (2022).
    """
    return {
        name: torch.lerp(began[name], tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in ended.items()
    }


@torch.no_grad()
def _average(average: dict[str, Tensor], student: Student, decay: float, step: int) -> None:
    """Move the averaged weights; early on they follow more closely."""
    decay = min(decay, (1 + step) / (10 + step))
    theirs = student.state_dict()
    names = [name for name, tensor in average.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([average[n] for n in names], [theirs[n] for n in names], 1 - decay)
