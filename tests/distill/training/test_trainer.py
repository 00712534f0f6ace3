"""The trainer's parts: rates, averages, groups, the look at photos set aside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional as F

from nanocap.distill.data.augment import squash
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.feature_cache import normalize
from nanocap.distill.recipes.recipe import Recipe, Stage
from nanocap.distill.teachers.rollout import roll_out, to_texts
from nanocap.distill.training.monitor import Best, Monitor
from nanocap.distill.training.run import Run, Start
from nanocap.distill.training.trainer import _average, _groups, learning_rate, train
from nanocap.errors import RecipeError
from nanocap.measure.metrics.cider import Cider
from nanocap.student import Student


def test_rates_rise_to_the_peak_and_fall_to_the_end() -> None:
    stage = Stage("s", "supervised", steps=100, warmup=10, final_lr=0.05)
    rates = [learning_rate(stage, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.525, abs=0.02)  # half way down the cosine
    assert 0.05 <= rates[-1] < 0.052


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (5, 5), (3, 10), (1, 1)])
def test_rates_of_short_stages(steps: int, warmup: int) -> None:
    stage = Stage("s", "supervised", steps=steps, warmup=warmup)
    assert all(0 < learning_rate(stage, step) <= 1 for step in range(steps))


def test_the_average_follows_closely_at_first(recipe: Recipe) -> None:
    student = Student(recipe.dimensions())
    average = {name: torch.zeros_like(t) for name, t in student.state_dict().items()}
    weight = student.decoder.positions
    _average(average, student, 0.999, step=0)
    torch.testing.assert_close(average["decoder.positions"], 0.9 * weight.detach())
    _average(average, student, 0.5, step=10_000)
    torch.testing.assert_close(average["decoder.positions"], 0.95 * weight.detach())


def test_groups_train_what_the_stage_names_at_its_rates(recipe: Recipe) -> None:
    student = Student(recipe.dimensions())
    stage = replace(recipe.stages[0], train=("decoder", "upper"), lr=0.5, trunk_lr=0.25)
    groups = _groups(student, stage)
    rates = {id(p): group["base"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    trunk = student.encoder.trunk
    assert {rates[id(p)] for p in student.decoder.parameters()} == {0.5}
    assert {rates[id(p)] for p in trunk.upper_parameters()} == {0.25}
    named = {id(p) for p in (*student.decoder.parameters(), *trunk.upper_parameters())}
    assert set(rates) == named
    for parameter in student.parameters():
        assert parameter.requires_grad == (id(parameter) in named)
        if id(parameter) in named:
            assert (decays[id(parameter)] > 0) == (parameter.dim() > 1)


def test_the_four_groups_are_the_student(recipe: Recipe) -> None:
    student = Student(recipe.dimensions())
    groups = _groups(student, recipe.stages[1])
    found = [id(p) for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in student.parameters()}


def test_the_monitor_scores_greedy_captions_of_photos_set_aside(
    recipe: Recipe, corpus: Corpus
) -> None:
    student = Student(recipe.dimensions()).eval()
    for parameter in student.decoder.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    monitor = Monitor(corpus, ["shapes"], student.dimensions)
    found = monitor.look({name: t.clone() for name, t in student.state_dict().items()})
    aside = corpus.aside("shapes")
    with torch.no_grad():
        pixels = torch.cat([normalize(squash(corpus.photo(row), 64)[None]) for row in aside])
        texts = to_texts(
            corpus.tokenizer, roll_out(student, student.encoder(pixels), 1, sample=False)
        )
    references = [corpus.rows[row].captions for row in aside]
    scores = [Cider(references).score(t, r) for t, r in zip(texts, references, strict=True)]
    assert found["cider"] == pytest.approx(100 * sum(scores) / 6, abs=0.01)
    assert found["distinct"] == pytest.approx(len(set(texts)) / 6, abs=0.001)
    total, count = 0.0, 0
    for row in aside:
        for ids in corpus.encoded(student.dimensions.max_tokens)[row]:
            pixels = normalize(squash(corpus.photo(row), 64)[None])
            with torch.no_grad():
                logits = student(pixels, torch.tensor([[[3, 6, *ids[:-1]]]]))[0, 0, 1:]
            total += float(F.cross_entropy(logits, torch.tensor(ids), reduction="sum"))
            count += len(ids)
    assert found["aside_loss"] == pytest.approx(total / count, abs=1e-3)
    assert Monitor(corpus, [], student.dimensions).look(student.state_dict()) == {}


def test_every_source_counts_alike_however_many_photos_it_has(
    recipe: Recipe, corpus: Corpus
) -> None:
    student = Student(recipe.dimensions()).eval()
    two = Corpus(corpus.folder)
    aside = corpus.aside("shapes")
    for row in aside[:2]:
        two.rows[row] = replace(two.rows[row], source="few")
    found = Monitor(two, ["shapes", "few"], student.dimensions).look(student.state_dict())
    for name in ("shapes", "few"):
        alone = Monitor(two, [name], student.dimensions).look(student.state_dict())
        assert found[f"cider {name}"] == pytest.approx(alone["cider"], abs=0.01)
        assert "cider shapes" not in alone
    both = (found["cider shapes"] + found["cider few"]) / 2
    assert found["cider"] == pytest.approx(both, abs=0.01)


def test_a_stage_may_end_with_its_best_weights(tmp_path: Path) -> None:
    best = Best(tmp_path / "best.safetensors")
    for cider, value in ((50.0, 1.0), (60.0, 2.0), (55.0, 3.0)):
        best.offer(cider, {"weight": torch.tensor([value])})
        best = Best(best.kept)  # as after a stop
    average = {"weight": torch.zeros(1)}
    best.restore(average)
    assert average["weight"].item() == 2


def test_a_stage_may_end_between_where_it_began_and_where_it_came_to(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    first, second = (replace(stage, steps=2, views=1, evaluate=0) for stage in recipe.stages[:2])
    found = {}
    for share in (1.0, 0.25):
        stages = (first, replace(second, train=("decoder", "upper"), blend=share))
        run = Run(replace(recipe, stages=stages), corpus, tmp_path / str(share), tmp_path)
        found[share] = Student.load(train(run, Accelerator(cpu=True)))[0].state_dict()
        began = Student.load(run.finished(0))[0].state_dict()
    for name, tensor in found[0.25].items():
        expected = torch.lerp(began[name], found[1.0][name], 0.25)
        torch.testing.assert_close(tensor, expected, msg=name)
    assert not torch.equal(found[0.25]["decoder.positions"], found[1.0]["decoder.positions"])


def test_a_trunk_may_end_between_the_start_s_and_what_a_fresh_one_came_to(
    recipe: Recipe, corpus: Corpus, checkpoints: list[Path], tmp_path: Path
) -> None:
    start = Start(checkpoints[0])
    began = start.student(recipe.dimensions()).state_dict()
    found = {}
    for share in (0.0, 0.25):
        stage = replace(recipe.stages[0], steps=2, views=1, evaluate=0, start_trunk=share)
        after = replace(recipe, stages=(stage,), start=str(start.path), fresh=True)
        run = Run(after, corpus, tmp_path / str(share), tmp_path, start=start)
        found[share] = Student.load(train(run, Accelerator(cpu=True)))[0].state_dict()
    mixed = start.upper_trunk()
    assert mixed
    assert all(name.startswith("encoder.trunk.") for name in mixed)
    for name, tensor in found[0.25].items():
        expected = found[0.0][name]
        if name in mixed:
            assert not torch.equal(expected, began[name])
            expected = torch.lerp(expected, began[name], 0.25)
        torch.testing.assert_close(tensor, expected, msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "magic"}, "stage 'self-critical' is of unknown kind 'magic'; known are naming"),
        (
            {"train": ("decoder", "all")},
            "stage 'self-critical' trains 'all'; known are decoder, enc",
        ),
        ({"train": ()}, "stage 'self-critical' trains nothing; known are decoder, encoder, conc"),
    ],
)
def test_the_last_stage_is_checked_before_the_first_begins(
    recipe: Recipe, corpus: Corpus, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    last = replace(recipe.stages[-1], **changes)  # type: ignore[arg-type]
    wrong = replace(recipe, stages=(*recipe.stages[:-1], last))
    out = tmp_path / "run"
    with pytest.raises(RecipeError) as caught:
        train(Run(wrong, corpus, out, tmp_path), Accelerator(cpu=True))
    assert str(caught.value).startswith(message)
    assert not out.exists()


def test_weights_of_another_trunk(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    wrong = replace(
        recipe, imagenet="efficientnet-lite0", student={**recipe.student, "trunk": "lite2"}
    )
    with pytest.raises(RecipeError, match=r"^imagenet 'efficientnet-lite0' does not fit the trunk"):
        train(Run(wrong, corpus, tmp_path / "run", tmp_path), Accelerator(cpu=True))
