"""Comparing what was exported with the student it came from, or int8 with fp32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.modules import (
    CACHES,
    SEEN,
    EncoderGraph,
    SearchBegin,
    Sizes,
    decoded,
)
from nanocap.convert.probe import Floats, Probe, batches, forced, rollout
from nanocap.runtime.engines import Engine
from nanocap.runtime.engines.state import State
from nanocap.student import Student
from nanocap.student.evidence import has_said, with_copies
from nanocap.student.search import Search, SearchState

# Of an fp32 export against eager: 6e-6 without evidence, 0.0013 with that of nano-s 1.5.0.
LOGITS_TOLERANCE = 3e-3
BATCH_TOLERANCE = 1e-3  # of a photo in a batch against the same alone, of the largest value
CHECKED = 3  # photos, and beams, of the check of batches


class EagerEngine:
    """A student and its search in torch, behind the runtime's engine protocol."""

    def __init__(self, student: Student, search: Search) -> None:
        self._student, self._search = student.eval(), search
        self._encoder = EncoderGraph(student)
        self._begin = SearchBegin(Sizes.of(student.dimensions), search)

    @torch.no_grad()
    def begin(
        self,
        pixels: npt.NDArray[np.uint8],
        beams: int,
        quality: int,
        length: int,
        length_penalty: float,
    ) -> State:
        cross = self._encoder(torch.from_numpy(pixels))
        state = self._begin(
            cross[0],
            torch.arange(beams),
            torch.tensor([quality]),
            torch.tensor([length]),
            torch.tensor([length_penalty]),
        )
        names = (*self._encoder.outputs, *SearchBegin.outputs)
        return {n: t.numpy() for n, t in zip(names, (*cross, *state), strict=True)}

    @torch.no_grad()
    def step(self, state: State, *, logits: bool = False) -> State:
        before = {name: torch.from_numpy(value) for name, value in state.items()}
        for name in CACHES:
            before[name] = F.pad(before[name], (0, 0, 0, 1))
        scores, keys, values, *copies = decoded(self._student.decoder, before)
        both = scores
        if copies:
            evidence = before["evidence"]
            both = with_copies(scores, copies[0], evidence, has_said(before["ids"], evidence))
        at = SearchState(*(before[name] for name in SearchState._fields))
        after, rows = self._search.step(at, both)
        moved = dict(zip(CACHES, (cache[:, rows] for cache in (keys, values)), strict=True))
        moved |= after._asdict() | ({"logits": scores} if logits else {})
        return {**state, **{name: value.numpy() for name, value in moved.items()}}


@dataclass(frozen=True)
class Divergence:
    """Where a greedy caption first differs from the reference's.

    Attributes:
        photo: its place among the probe's.
        place: of the piece in the caption, from 1.
        expected, found: ids of the two pieces.
    """

    photo: int
    place: int
    expected: int
    found: int


@dataclass(frozen=True)
class Parity:
    """How far a candidate is from its reference on probe photos, fed the reference's captions.

    Attributes:
        max_logit_difference: largest over all steps and ids.
        mean_logit_difference: mean of the absolute differences.
        tokens_equal: share of the pieces where both choose the same.
        captions_equal: share of the photos whose greedy captions are the same throughout.
        photos: how many were compared.
        divergences: one of each caption that is not the same.
    """

    max_logit_difference: float
    mean_logit_difference: float
    tokens_equal: float
    captions_equal: float
    photos: int
    divergences: tuple[Divergence, ...] = ()

    def to_dict(self) -> dict[str, float]:
        """Rounded, for a manifest; without the divergences."""
        return {
            key: value if isinstance(value, int) else float(f"{value:.4g}")
            for key, value in asdict(self).items()
            if key != "divergences"
        }


def compare(reference: Engine, candidate: Engine, probe: Probe, *, beams: int = 1) -> Parity:
    """Run both engines side by side over greedy captions of the reference.

    Args:
        beams: the fewest that the candidate takes; all are fed the same.

    Raises:
        ConversionError: the candidate gives values that are not finite.
    """
    differences: list[Floats] = []
    equal_tokens: list[npt.NDArray[np.bool_]] = []
    equal_captions: list[npt.NDArray[np.bool_]] = []
    divergences: list[Divergence] = []
    seen = 0
    for pixels in batches(probe.pixels):
        mine = probe.begin(candidate, pixels, beams)
        same = np.ones(len(pixels), np.bool_)
        for step in rollout(reference, probe, pixels):
            mine = forced(candidate, mine, step.state["tokens"])
            logits = mine["logits"][:, 0]
            if not np.isfinite(logits).all():
                raise ConversionError("the exported graph gives values that are not finite")
            theirs, ours = (probe.barred(each).argmax(1) for each in (step.logits, logits))
            agree = theirs == ours
            divergences += [
                Divergence(seen + int(row), step.place, int(theirs[row]), int(ours[row]))
                for row in np.flatnonzero(same & ~agree & step.counts)
            ]
            same &= agree | ~step.counts
            equal_tokens.append(agree[step.counts])
            differences.append(np.abs(step.logits - logits)[step.counts].ravel())
        equal_captions.append(same)
        seen += len(pixels)
    difference = np.concatenate(differences)
    return Parity(
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
        tokens_equal=float(np.concatenate(equal_tokens).mean()),
        captions_equal=float(np.concatenate(equal_captions).mean()),
        photos=len(probe.pixels),
        divergences=tuple(divergences),
    )


def check_exact(parity: Parity, what: str) -> None:
    """That an fp32 export computes what eager does.

    Raises:
        ConversionError: it does not; the message says by how much.
    """
    if parity.max_logit_difference > LOGITS_TOLERANCE or parity.captions_equal < 1:
        raise ConversionError(
            f"{what} differs from eager: logits by {parity.max_logit_difference:.2g} (at most"
            f" {LOGITS_TOLERANCE:g}), captions equal {parity.captions_equal:.0%}; this backend"
            " does not compute the student as trained, do not ship it"
        )


def check_batches(
    engine: Engine, probe: Probe, what: str, tolerance: float = BATCH_TOLERANCE
) -> None:
    """That a photo gives the same beside others, alone, and under several beams, to `tolerance`.

    Differences are shares of the largest value, or of 1 where that is smaller. Beside other photos,
    the sums are added in the same order: what differs then comes from those photos. Alone, they may
    be added in another order, and where a student has learnt little, with tokens that are much
    alike, that decides which of them merge and to what integer a value is rounded.

    Raises:
        ConversionError: it does not.
    """
    pixels = np.resize(probe.pixels, (CHECKED, *probe.pixels.shape[1:]))
    tokens = np.array([[probe.quality, probe.never[0], probe.length]] * CHECKED, np.int64)
    together = _first_step(engine, probe, pixels, tokens)
    for index in range(CHECKED):
        others = 255 - pixels
        others[index] = pixels[index]
        beside = _apart(together, _first_step(engine, probe, others, tokens), index, index)
        if not beside <= tolerance:
            raise ConversionError(
                f"{what}: a photo in a batch differs by {beside:.2g} beside other photos; the graph"
                " mixes them, do not ship it"
            )
        one = slice(index, index + 1)
        apart = 0.0
        for beam in range(tokens.shape[1]):
            alone = _first_step(engine, probe, pixels[one], tokens[one, beam : beam + 1])
            ours = {**together, "logits": together["logits"][:, beam : beam + 1]}
            apart = max(apart, _apart(ours, alone, index, 0))
        if not apart <= tolerance:
            exact = ", or take --precision fp32" if tolerance > BATCH_TOLERANCE else ""
            raise ConversionError(
                f"{what}: a photo in a batch differs by {apart:.2g} of the largest value from the"
                f" same photo alone (at most {tolerance:g}): the student tells so little apart that"
                f" rounding decides; train it longer or on more photos{exact}"
            )


def check_student(student: Student, search: Search, probe: Probe, what: str) -> None:
    """That a student is worth minutes of exporting: it says something, and the same in batches.

    Raises:
        ConversionError: it is not; the message says what to do.
    """
    engine = EagerEngine(student, search)
    check_batches(engine, probe, what)
    for pixels in batches(probe.pixels):
        first = next(step for step in rollout(engine, probe, pixels) if step.counts.any())
        if (probe.barred(first.logits).argmax(1) != search.end).any():
            return
    raise ConversionError(
        f"{what}: says nothing of any of {len(probe.pixels)} photos: train it longer"
    )


def _first_step(
    engine: Engine, probe: Probe, pixels: npt.NDArray[np.uint8], tokens: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[np.float32]]:
    """What photos look like to the decoder, and logits of tokens [B, K] in the first place; the
    photos are the first axis."""
    state = probe.begin(engine, pixels, tokens.shape[1])
    seen = {name: np.moveaxis(state[name], 1, 0) for name in SEEN}
    return {**seen, "logits": forced(engine, state, tokens)["logits"]}


def _apart(
    ours: Mapping[str, npt.NDArray[np.float32]],
    theirs: Mapping[str, npt.NDArray[np.float32]],
    our: int,
    their: int,
) -> float:
    """The largest difference of photo `our` of ours from photo `their` of theirs, as a share."""
    return max(
        float(np.abs(a[our] - theirs[name][their]).max() / max(1.0, np.abs(a[our]).max()))
        for name, a in ours.items()
    )
