"""Labelling on Ray Data: the same stages and the same files, made by many machines.

Each actor loads the teachers once and makes whole files of labels, one at a time. A file appears
whole or not at all whoever makes it, so a run may be killed and go on here, on Ray, or in parts.
All machines see the photos, the checkpoints and `out` under the same paths.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nanocap.distill.labelling.engine import Engine
from nanocap.distill.labelling.panel import Order, Panel
from nanocap.distill.labelling.plan import Labelled, Task
from nanocap.errors import DataError, MissingExtraError, NanocapError

INDEX, PHOTOS, REASON = "index", "photos", "reason"  # columns


class Labeller:
    """An actor.

    Args:
        folder: that relative paths of the order are relative to.
    """

    def __init__(self, order: Order, folder: str):
        self.order, self.folder = order, folder
        self.refusal = ""  # why one file could not be made: said of all that come after it

    @cached_property
    def loaded(self) -> tuple[Task, Panel]:
        """What the order names, in a folder that is theirs."""
        os.chdir(self.folder)
        task = self.order.task()
        panel = self.order.panel(task.photos)
        panel.claim(task)
        return task, panel

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the file of labels of this index: how many photos it has, or why it cannot be made.

        An actor that failed makes no more files; the others go on.
        (Of an error that is raised Ray hands on the text of its traceback alone.)
        """
        [index], done = map(int, batch[INDEX]), 0
        if not self.refusal:
            try:
                task, panel = self.loaded
                Engine(task, panel).make([index])  # one a file: its clock begins with it
                done = task.size_of(index)
            except NanocapError as error:
                self.refusal = str(error)
        return {PHOTOS: np.array([done]), REASON: np.array([self.refusal])}


def label_on_ray(
    order: Order,
    task: Task,
    workers: int | None = None,
    step: Callable[[int], None] = lambda count: None,
    skip: Callable[[int], None] = lambda count: None,
) -> Labelled:
    """`nanocap.distill.labelling.label`, by actors on the cluster that RAY_ADDRESS names, or here.

    Args:
        task: the order's.
        workers: actors; default: one a GPU of the cluster, or one where it has none.
        step: told how many more photos are done; `skip`, how many were done by an earlier run.
    Raises:
        MissingExtraError: Ray is not installed.
        DataError: what an actor could not do, or what `label` raises.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing of ours calls home
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingExtraError("nanocap label --engine ray", "ray", "ray") from None
    todo = task.unfinished(skip)
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        if todo:
            ray.data.DataContext.get_current().enable_progress_bars = False  # ours is drawn
            rows = ray.data.from_items([{INDEX: index} for index in todo])
            made = rows.map_batches(
                Labeller,
                fn_constructor_args=(order, str(Path.cwd())),
                batch_size=1,
                concurrency=min(workers or max(1, gpus), len(todo)),
                num_gpus=1 if gpus and order.settings.device == "auto" else 0,
            )
            refusals = []
            # To the last row, whatever it says: Ray ends a process that shuts it down while threads
            # of Ray Data are still at work.
            for row in made.iter_rows():
                step(int(row[PHOTOS]))
                refusals += [row[REASON]] if row[REASON] else []
            if refusals:
                raise DataError(refusals[0])
        else:
            _ = Labeller(order, str(Path.cwd())).loaded  # compares it with the folder's plan
    finally:
        if started:
            ray.shutdown()
    return task.conclude()
