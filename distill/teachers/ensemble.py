"""Several teachers as one: students of one vocabulary averaged, any others pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from nanocap.distill.data.tokenizer import normalize
from nanocap.distill.teachers import (
    KINDS,
    PROMPTED,
    KeyedTeacher,
    Scored,
    Teacher,
    ask,
    load_teacher,
)
from nanocap.distill.teachers.settings import DEFAULTS, Settings
from nanocap.distill.teachers.student import PREFIX, StudentTeacher, agree, read
from nanocap.errors import OptionError
from nanocap.measure.metrics.cider import Cider


class Pool:
    """The candidates of teachers whose scores cannot be compared, ranked by consensus.

    A candidate's score is its mean CIDEr-D against all others, those of its own teacher included:
    minimum Bayes risk decoding (Kumar and Byrne, "Minimum Bayes-Risk Decoding for Statistical
    Machine Translation", 2004) with the similarity that Devlin et al. choose captions by
    ("Exploring Nearest Neighbor Approaches for Image Captioning", 2015). What several teachers say
    in other words wins; what one alone has seen loses.
    """

    def __init__(self, members: Sequence[Teacher | KeyedTeacher]):
        self.members = tuple(members)
        self.name = ",".join(member.name for member in self.members)

    def expect(self, photos: Mapping[str, str], folders: Sequence[Path]) -> None:
        """Tell those members that want to hear it."""
        for member in self.members:
            if isinstance(member, KeyedTeacher):
                member.expect(photos, folders)

    def caption_keyed(
        self, keys: Sequence[str], images: Sequence[Image.Image], n: int
    ) -> list[list[Scored]]:
        """At most `n` different captions of each photo, the one with most agreement first."""
        answers = [ask(member, keys, images, n) for member in self.members]
        return [
            consensus([one.text for found in several for one in found])[:n]
            for several in zip(*answers, strict=True)
        ]


def consensus(texts: Sequence[str]) -> list[Scored]:
    """Candidates with their mean CIDEr-D against the others, best first; equal ones once.

    All n-grams weigh the same: rarity among a handful of candidates of one photo would favour what
    only one of them says, and rarity among a batch would make a label depend on its neighbours.

    A caption said twice counts twice as evidence. Scores are from 0 to 10, 0 of a text that is
    alone. Texts that differ only in case or punctuation are one, as the first is written.
    """
    plain = [normalize(text) for text in texts]
    cider = Cider(())
    best: dict[str, Scored] = {}
    for index, (text, words) in enumerate(zip(texts, plain, strict=True)):
        if words and words not in best:
            others = [*plain[:index], *plain[index + 1 :]]
            best[words] = Scored(text, cider.score(words, others) if others else 0.0)
    return sorted(best.values(), key=lambda one: -one.score)


def load(rest: str, settings: Settings = DEFAULTS) -> StudentTeacher | Pool:
    """`ensemble:A,B,...`: each a `KIND:REST`, or the checkpoint of a student.

    Students of one vocabulary and one image size are averaged, piece by piece; all else is pooled.

    Raises:
        OptionError: a prompt is given and no member takes one, or a member is itself an ensemble.
        NanocapError: a member cannot be loaded.
    """
    members = [member.strip() for member in rest.split(",")]
    specs = [m if m.partition(":")[0] in KINDS else f"{PREFIX}{m}" for m in members]
    kinds = [spec.partition(":")[0] for spec in specs]
    if "ensemble" in kinds:
        raise OptionError(f"ensemble:{rest}: an ensemble cannot be a member of another")
    if settings.prompt is not None and not set(kinds) & set(PROMPTED):
        raise OptionError(f"ensemble:{rest}: none of its members takes a prompt")
    if set(kinds) == {"student"}:
        finished = [read(spec.removeprefix(PREFIX)) for spec in specs]
        if agree(finished):
            return StudentTeacher(finished, settings)
        return Pool([StudentTeacher([one], settings) for one in finished])
    silent = replace(settings, prompt=None)
    return Pool(
        [
            load_teacher(spec, settings if kind in PROMPTED else silent)
            for spec, kind in zip(specs, kinds, strict=True)
        ]
    )
