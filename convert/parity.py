"""Comparing what was exported with the student it came from, or int8 with fp32."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch

from nanocap.convert.errors import ConversionError
from nanocap.convert.rollout import Probe, batches, empty_cache, rollout
from nanocap.runtime.engines import Engine, Floats, Ints
from nanocap.student import Student

LOGITS_TOLERANCE = 1e-3  # of an fp32 export against eager
BATCH_TOLERANCE = 1e-3  # of a photo in a batch against the same alone, of the largest value
CHECKED = 3  # photos, and beams, of the check of batches


class EagerEngine:
    """A student in torch behind the runtime's engine protocol."""

    def __init__(self, student: Student) -> None:
        self._student = student.eval()

    @torch.no_grad()
    def encode(self, pixels: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        from nanocap.convert.graphs.modules import EncoderGraph

        keys, values = EncoderGraph(self._student)(torch.from_numpy(pixels))
        return keys.numpy(), values.numpy()

    @torch.no_grad()
    def step(
        self,
        tokens: Ints,
        position: int,
        cross: tuple[Floats, Floats],
        cache: tuple[Floats, Floats],
    ) -> tuple[Floats, tuple[Floats, Floats]]:
        tensors = [torch.from_numpy(a) for a in (tokens, np.array([position]), *cross, *cache)]
        logits, keys, values = self._student.decoder.step(*tensors)
        return logits.numpy(), (keys.numpy(), values.numpy())


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


def compare(reference: Engine, candidate: Engine, probe: Probe) -> Parity:
    """Run both engines side by side over greedy captions of the reference.

    Raises:
        ConversionError: the candidate gives values that are not finite.
    """
    differences: list[Floats] = []
    equal_tokens: list[npt.NDArray[np.bool_]] = []
    equal_captions: list[npt.NDArray[np.bool_]] = []
    divergences: list[Divergence] = []
    seen = 0
    for pixels in batches(probe.pixels):
        cross = candidate.encode(pixels)
        cache = empty_cache(probe.sizes, len(pixels))
        same = np.ones(len(pixels), np.bool_)
        for step in rollout(reference, probe, pixels):
            logits, cache = candidate.step(step.tokens, step.position, cross, cache)
            if not np.isfinite(logits).all():
                raise ConversionError("the exported graph gives values that are not finite")
            theirs = probe.barred(step.logits).argmax(1)
            ours = probe.barred(logits[:, 0]).argmax(1)
            agree = theirs == ours
            divergences += [
                Divergence(seen + int(row), step.place(probe), int(theirs[row]), int(ours[row]))
                for row in np.flatnonzero(same & ~agree & step.counts)
            ]
            same &= agree | ~step.counts
            equal_tokens.append(agree[step.counts])
            differences.append(np.abs(step.logits - logits[:, 0])[step.counts].ravel())
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
    tokens = np.array([[probe.prefix[0], probe.end, *probe.prefix[1:2]]] * CHECKED, np.int64)
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
            logits = together[-1][:, :, beam : beam + 1]
            apart = max(apart, _apart((*together[:-1], logits), alone, index, 0))
        if not apart <= tolerance:
            exact = ", or take --precision fp32" if tolerance > BATCH_TOLERANCE else ""
            raise ConversionError(
                f"{what}: a photo in a batch differs by {apart:.2g} of the largest value from the"
                f" same photo alone (at most {tolerance:g}): the student tells so little apart that"
                f" rounding decides; train it longer or on more photos{exact}"
            )


def check_student(student: Student, probe: Probe, what: str) -> None:
    """That a student is worth minutes of exporting: it says something, and the same in batches.

    Raises:
        ConversionError: it is not; the message says what to do.
    """
    engine = EagerEngine(student)
    check_batches(engine, probe, what)
    for pixels in batches(probe.pixels):
        for step in rollout(engine, probe, pixels):
            if step.counts.any():
                if (probe.barred(step.logits).argmax(1) != probe.end).any():
                    return
                break
    raise ConversionError(
        f"{what}: says nothing of any of {len(probe.pixels)} photos: train it longer"
    )


def _first_step(
    engine: Engine, probe: Probe, pixels: npt.NDArray[np.uint8], tokens: Ints
) -> tuple[Floats, Floats, Floats]:
    """Keys and values [L, B, N, D], and logits [1, B, K, V] of tokens [B, K] at position 0."""
    cross = engine.encode(pixels)
    logits, _ = engine.step(tokens, 0, cross, empty_cache(probe.sizes, tokens.size))
    return (*cross, logits[None])


def _apart(ours: tuple[Floats, ...], theirs: tuple[Floats, ...], our: int, their: int) -> float:
    """The largest difference of photo `our` of ours from photo `their` of theirs, as a share."""
    return max(
        float(np.abs(a[:, our] - b[:, their]).max() / max(1.0, np.abs(a[:, our]).max()))
        for a, b in zip(ours, theirs, strict=True)
    )
