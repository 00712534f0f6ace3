"""Which photos a page shows: a sample by chance, and those at both ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SEED = 0
SAMPLE, ENDS = 24, 12  # photos by chance; photos at each end


@dataclass(frozen=True)
class Section:
    """Photos under one heading."""

    name: str  # `sample`, `lowest` or `highest`
    keys: tuple[str, ...]  # shown here
    elsewhere: tuple[str, ...] = ()  # that belong here as well and are shown in an earlier section


def choose(keys: Sequence[str], scores: Mapping[str, float] | None) -> list[Section]:
    """The sections of a page, each photo in one of them.

    The sample is drawn from all photos, good and bad, the same with each call.

    Args:
        scores: by key; None where photos have none, which leaves the sample alone.
    """
    drawn = np.random.default_rng(SEED).permutation(len(keys))[:SAMPLE]
    sections = [Section("sample", tuple(keys[place] for place in sorted(drawn)))]
    if scores is None:
        return sections
    ascending = sorted(keys, key=lambda key: (scores[key], key))
    ends = {"lowest": ascending[:ENDS], "highest": ascending[::-1][:ENDS]}
    for name, wanted in ends.items():
        shown = {key for section in sections for key in section.keys}
        here = tuple(key for key in wanted if key not in shown)
        sections.append(Section(name, here, tuple(key for key in wanted if key in shown)))
    return sections
