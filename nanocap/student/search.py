"""The search for captions, as arithmetic on a state of named tensors: one module for every backend.

A hypothesis is scored by its log probability divided by `length ** length_penalty`, its length
counted in pieces and the end (Wu et al. 2016, arXiv 1609.08144, without the constant 5). At every
step each photo takes the 2K best continuations of its K beams: those among the first K that end
become candidates for the answer, the K best that do not end go on. A photo is done once K
hypotheses ended and none of its beams, were it to end now at no cost, would beat the worst of them.

Shapes: B photos, K beams, V ids, T pieces of the longest caption, the end included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.bounds import MAX_BEAMS
from nanocap.errors import OptionError
from nanocap.student.controls import PREFIX
from nanocap.student.layers import NEVER
from nanocap.student.repeats import WINDOW, RepeatRule

Choice: TypeAlias = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""Takes scores [B, N] and a count; gives the values and the places of those that are taken, best
first: [B, count] each."""


class SearchState(NamedTuple):
    """Where a search stands; all that it needs besides the decoder's caches.

    Attributes:
        control: int64 [1], the control token that is fed second: it asks for a length.
        penalty: float [1], the length penalty: 0 prefers short captions, 1 scores by the mean log
            probability.
        bias: float [B, K, V], or one number, added to the log probabilities where continuations are
            compared, and not to those that are reported: words to avoid or to favour, or the noise
            of a sampler.
        position: int64 [1], of the tokens that are fed next.
        tokens: int64 [B, K], fed next.
        totals: float [B, K], the log probability of each beam, its biases included.
        ids: int64 [B, K, T], the pieces of each beam so far; `pad` behind them.
        log_probabilities: float [B, K, T], of each of them.
        answer_scores: float [B, K], of the hypotheses that ended, best first; `NEVER` for none.
        answer_ids, answer_log_probabilities: theirs, the end included. Where the length ran out
            before any ended, the beams themselves, without an end.
        going: bool [B], whether the search of a photo goes on.
    """

    control: Tensor
    penalty: Tensor
    bias: Tensor
    position: Tensor
    tokens: Tensor
    totals: Tensor
    ids: Tensor
    log_probabilities: Tensor
    answer_scores: Tensor
    answer_ids: Tensor
    answer_log_probabilities: Tensor
    going: Tensor

    def some(self, photos: Tensor) -> SearchState:
        """The state of some of the photos, int64 [B']."""
        shared = {"control", "penalty", "position"} | ({"bias"} if self.bias.dim() == 0 else set())
        return SearchState(
            *(t if n in shared else t[photos] for n, t in zip(self._fields, self, strict=True))
        )


CONSTANT = ("control", "penalty", "bias")  # of a state: no step changes them


def likeliest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best. Where several are equal, a backend may take any; ONNX takes the first."""
    values, places = scores.topk(count, 1)
    return values, places


class Search(nn.Module):
    """Begins a search, and takes it a step further by the decoder's logits.

    Args:
        vocabulary: V.
        longest: T.
        end: id that ends a caption; never the first piece.
        pad: id that stands where there is no piece.
        never: ids that are never taken.
        repeats: which ids would say a word twice in a row, and are not taken; None lets them.
        choice: how continuations are taken; `likeliest`, or a sampler for one beam.
    """

    barred: Tensor

    def __init__(
        self,
        vocabulary: int,
        longest: int,
        end: int,
        pad: int,
        never: Collection[int],
        repeats: RepeatRule | None = None,
        choice: Choice = likeliest,
    ) -> None:
        super().__init__()
        if vocabulary * MAX_BEAMS > 1 << 24:
            raise OptionError(f"the search counts in floats: {vocabulary} pieces are too many")
        self.vocabulary, self.longest, self.end, self.pad = vocabulary, longest, end, pad
        self.choice = choice
        barred = torch.zeros(2, vocabulary, dtype=torch.bool)  # as first piece, and as another
        barred[:, sorted(never)] = True
        barred[0, end] = True  # an empty caption is no answer
        self.register_buffer("barred", barred, persistent=False)
        self.repeats = repeats

    def begin(
        self, images: int, beams: int, quality: Tensor, length: Tensor, length_penalty: Tensor
    ) -> SearchState:
        """The state before the first step.

        Args:
            images, beams: B and K.
            quality, length: int64 [1], ids of the control tokens.
            length_penalty: float [1].
        """
        device = length.device
        shape = (images, beams, self.longest)
        first = torch.arange(beams, device=device) == 0
        pads = torch.full(shape, self.pad, device=device)
        nothing = torch.zeros(shape, device=device)
        return SearchState(
            control=length.clone(),
            penalty=length_penalty.clone(),
            bias=torch.zeros(images, beams, self.vocabulary, device=device),
            position=torch.zeros_like(length),
            tokens=quality.expand(images, beams).clone(),
            # all beams are equal at first: one is enough
            totals=torch.where(first, 0.0, NEVER).expand(images, beams).clone(),
            ids=pads,
            log_probabilities=nothing,
            answer_scores=torch.full((images, beams), NEVER, device=device),
            answer_ids=pads.clone(),
            answer_log_probabilities=nothing.clone(),
            going=torch.ones(images, dtype=torch.bool, device=device),
        )

    def step(self, state: SearchState, logits_BKV: Tensor) -> tuple[SearchState, Tensor]:
        """One step further.

        Args:
            logits_BKV: of the decoder, fed `state.tokens` at `state.position`.
        Returns:
            the new state, and which row (photo * K + beam) each of its beams continues, int64
            [B * K]: its caches are to be taken from there.
        """
        images, beams, vocabulary = logits_BKV.shape
        position = state.position
        barred = self.barred.index_select(0, (position >= PREFIX).long())
        said = torch.log_softmax(torch.where(barred, NEVER, logits_BKV.float()), 2)
        scores = said + state.bias + state.totals.unsqueeze(2)
        if self.repeats is not None:
            scores = self.repeats(scores, self._past(state))
        sums, places = self.choice(scores.reshape(images, -1), 2 * beams)  # [B, 2K], best first
        steps = said.reshape(images, -1).gather(1, places)
        tokens = places % vocabulary
        # few nodes in ONNX; the half, for a backend may multiply by the rounded inverse
        parents = ((places - tokens).float() / vocabulary + 0.5).long()
        # in the prompt no place is written
        here = torch.arange(self.longest, device=places.device) == position - 1
        ids = torch.where(here, tokens.unsqueeze(2), _rows(state.ids, parents))  # [B, 2K, T]
        logs = torch.where(here, steps.unsqueeze(2), _rows(state.log_probabilities, parents))

        stops = tokens == self.end
        places_left = torch.arange(2 * beams, 0, -1, device=places.device)
        kept = torch.where(stops, 0, places_left).topk(beams, 1).indices  # the first that go on
        totals = sums.gather(1, kept)

        # the length counts the pieces and the end; of the prompt nothing is scored
        share = position.clamp(min=1).float() ** -state.penalty
        real = sums[:, :beams] > NEVER / 2
        ended = torch.logical_and(torch.logical_and(stops[:, :beams], real), state.going[:, None])
        ended_scores = torch.where(ended, sums[:, :beams] * share, NEVER)
        live_scores = torch.where(totals > NEVER / 2, totals * share, NEVER)
        last = position >= self.longest
        best = torch.maximum(ended_scores, state.answer_scores).amax(1, keepdim=True)
        cut = torch.logical_and(torch.logical_and(last, best <= NEVER), state.going[:, None])
        cut_scores = torch.where(cut, live_scores, NEVER)
        ids_kept, logs_kept = _rows(ids, kept), _rows(logs, kept)

        # behind all that is at least as good
        offered = torch.cat([state.answer_scores, ended_scores, cut_scores], 1)
        answer_scores, held = offered.topk(beams, 1)
        offered_ids = torch.cat([state.answer_ids, ids[:, :beams], ids_kept], 1)
        offered_logs = torch.cat([state.answer_log_probabilities, logs[:, :beams], logs_kept], 1)

        prompt = position < PREFIX - 1
        hopeful = torch.logical_and(live_scores[:, 0] > answer_scores[:, -1], state.going)
        first = torch.arange(images, device=places.device).unsqueeze(1) * beams
        return (
            state._replace(
                position=position + 1,
                tokens=torch.where(prompt, state.control, tokens.gather(1, kept)),
                totals=torch.where(prompt, state.totals, totals),
                ids=ids_kept,
                log_probabilities=logs_kept,
                answer_scores=answer_scores,
                answer_ids=_rows(offered_ids, held),
                answer_log_probabilities=_rows(offered_logs, held),
                going=torch.logical_and(hopeful, torch.logical_not(last)),
            ),
            (first + parents.gather(1, kept)).flatten(),
        )

    def _past(self, state: SearchState) -> Tensor:
        """The last `WINDOW` pieces of each beam, `pad` where there are none. [B, K, WINDOW]"""
        behind = F.pad(state.ids, (WINDOW, 0), value=self.pad)
        window = torch.arange(WINDOW, device=behind.device)
        return behind.index_select(2, (state.position - 1).clamp(min=0) + window)


def _rows(rows_BNT: Tensor, index_BM: Tensor) -> Tensor:
    """Of each photo the rows at these places. [B, M, T]"""
    return rows_BNT.gather(1, index_BM.unsqueeze(2).expand(-1, -1, rows_BNT.shape[2]))
