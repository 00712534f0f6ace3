"""A recipe together with all that it needs before it: one command from photos to the student."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator

from nanocap.distill.data.corpus import prepare
from nanocap.distill.labelling import Options, label
from nanocap.distill.labelling.panel import Order
from nanocap.distill.recipes.earlier_runs import Earlier, mentioned
from nanocap.distill.recipes.recipe import Before, Recipe, load_recipe
from nanocap.distill.teachers import kind_of
from nanocap.distill.teachers.similarity import ImageTextScorer
from nanocap.distill.training.run import Run, Start
from nanocap.distill.training.trainer import train
from nanocap.distill.training.white_box_teachers import Guides
from nanocap.errors import DataError, OptionError, RecipeError
from nanocap.files.digest import file_digest
from nanocap.progress import progress

FOLDER = "before"  # below the run's own


@dataclass(frozen=True)
class Chain:
    """A run and the runs before it."""

    recipe: Path
    out: Path
    cache: Path  # of prepared photos and maps, one for all runs
    data: Path | None = None  # folder that shards are relative to, instead of a recipe's own root

    def make(self, accelerator: Accelerator) -> Path:
        """Do all that is not done yet, in order; returns the path of the finished student.

        Raises:
            RecipeError: a recipe is wrong, names itself before itself, or mentions what is not
                there.
            NanocapError: as training and labelling do.
        """
        return train(self.run(self.load(), accelerator), accelerator)

    def run(self, recipe: Recipe, accelerator: Accelerator) -> Run:
        """The run of the recipe, once everything before it has been made."""
        for needed in recipe.before:
            if needed.recipe:
                self._earlier(needed).make(accelerator)
                continue
            if accelerator.is_main_process:
                self._label(recipe, needed)
            accelerator.wait_for_everyone()
        start = Start(self._file(recipe.start)) if recipe.start else None
        guides = Guides([self._file(name) for name in recipe.teachers]) if recipe.teachers else None
        scorer = ImageTextScorer.load(self._file(recipe.scorer)) if recipe.scorer else None
        shared = recipe.data.tokenizer
        before = start or guides or (Start(self._file(shared)) if shared else None)
        with accelerator.main_process_first():
            tokenizer = before.tokenizer if before is not None else ""
            corpus = prepare(recipe, self._root(recipe), self.cache, tokenizer, self._before)
        # the tokenizer decides: few captions have fewer pieces than a recipe asks for
        data = replace(recipe.data, vocabulary=corpus.tokenizer.get_vocab_size())
        recipe = replace(recipe, data=data)
        if corpus.concepts is not None:
            recipe = recipe.with_concepts(len(corpus.concepts.words), corpus.concepts.learned)
        made = [self._before.digest(f"before:{needed.name}") for needed in recipe.before]
        if recipe.scorer:
            made.append(file_digest(self._file(recipe.scorer)))
        files = (start, guides, scorer, self.recipe.parent, tuple(made))
        return Run(recipe, corpus, self.out, self.cache, *files)

    def load(self) -> Recipe:
        """The recipe, and those before it checked as well: now rather than hours later.

        Raises:
            RecipeError: as `make` does.
        """
        return self._load(())

    def _load(self, outer: tuple[Path, ...]) -> Recipe:
        path = self.recipe.resolve()
        if path in outer:
            raise RecipeError(f"{self.recipe}: comes before itself")
        recipe = load_recipe(self.recipe)
        for needed in recipe.before:
            if needed.recipe:
                self._earlier(needed)._load((*outer, path))
            for teacher in needed.teachers:
                try:
                    kind_of(teacher)
                except OptionError as error:
                    raise RecipeError(f"{self.recipe}: before:{needed.name}: {error}") from error
        names = {needed.name for needed in recipe.before}
        for name in (name for text in _texts(recipe) for name in mentioned(text)):
            if name not in names:
                known = ", ".join(sorted(names)) or "nothing"
                raise RecipeError(f"{self.recipe}: before:{name} is not made here; made is {known}")
        return recipe

    def _earlier(self, needed: Before) -> Chain:
        out = self.out / FOLDER / needed.name
        return Chain(self.recipe.parent / needed.recipe, out, self.cache, self.data)

    def _root(self, recipe: Recipe) -> Path:
        return self.data if self.data is not None else self.recipe.parent / recipe.data.root

    @property
    def _before(self) -> Earlier:
        return Earlier(self.out / FOLDER)

    def _file(self, text: str) -> Path:
        return self.recipe.parent / self._before.located(text)

    def _label(self, recipe: Recipe, needed: Before) -> None:
        root, located = self._root(recipe), self._before.located
        order = Order(
            teachers=tuple(map(located, needed.teachers)),
            images=tuple(str(root / located(one)) for one in needed.images),
            out=self.out / FOLDER / needed.name,
            options=Options(captions=needed.captions, original=needed.original),
            adapt=self._file(needed.adapt) if needed.adapt else None,
        )
        task = order.task()
        with progress(f"labelling {needed.name}", len(task.photos)) as part:
            labelled = label(task, order.panel(task.photos), part.step, part.skip)
        if not labelled.manifest["rows"]:
            raise DataError(f"{order.out}: no photo could be labelled")


def _texts(recipe: Recipe) -> list[str]:
    """Wherever a recipe may mention what was made before it."""
    labels = (text for one in recipe.before for text in (*one.teachers, *one.images, one.adapt))
    shards = (source.shards for source in recipe.data.sources)
    return [*labels, *shards, *recipe.teachers, recipe.start, recipe.scorer, recipe.data.tokenizer]
