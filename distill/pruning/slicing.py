"""A student without the channels that went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from nanocap.distill.pruning.axes import Kept, by_head, find_axes, widths_of
from nanocap.student import Dimensions, Student


@torch.no_grad()
def slice_student(dimensions: Dimensions, state: Mapping[str, Tensor], kept: Kept) -> Student:
    """A smaller student, in eval mode, that says what one with all other channels masked would.

    Args:
        dimensions, state: of the student; what `state` holds beside its weights is left out.
        kept: the channels that stay, of all heads of an axis equally many and at least one.
    """
    smaller, counts = dict(state), []
    for axis in find_axes(dimensions):
        for site in axis.sites:
            stays = kept[site.masked].to(next(iter(state.values())).device)
            (count,) = {int(one) for one in by_head(site, stays).sum(1)}
            for name, axis_of in site.tensors:
                smaller[name] = smaller[name].index_select(axis_of, stays.nonzero()[:, 0])
            if site.keys:
                # attention divides by the root of a head's channels, of which there are fewer now
                for name in (f"{site.reader}.weight", f"{site.reader}.bias"):
                    smaller[name] = smaller[name] * (count / axis.channels) ** 0.5
        counts.append(count)
    widths = widths_of(dimensions, counts)
    student = Student(replace(dimensions, pruned=None if widths == dimensions.whole else widths))
    student.load_state_dict({name: smaller[name] for name in student.state_dict()})
    return student.eval()
