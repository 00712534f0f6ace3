"""Token merging in arithmetic that XNNPACK takes: no comparison, no index, no step in a slice.

The same as `nanocap.student.merging` for one photo. A comparison of two numbers is their difference
times `LARGE`, held between 0 and 1: exact, because two different floats of a photo's size differ by
far more than 1 / LARGE.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.errors import NanocapError

LARGE = 1e30


class Merging(nn.Module):
    """Merges N tokens of one photo into fewer.

    Args:
        tokens: N.
        keep: how many remain, from N // 2 to N.
        width: channels of the keys that are compared.
    Raises:
        NanocapError: one merge cannot leave so few.
    """

    of_channels: Tensor
    of_evens: Tensor
    single: Tensor
    earlier_odd: Tensor
    earlier_even: Tensor
    one: Tensor
    large: Tensor
    leaving: Tensor
    slots: Tensor

    def __init__(self, tokens: int, keep: int, width: int) -> None:
        super().__init__()
        self.evens, self.odds, self.keep = (tokens + 1) // 2, tokens // 2, keep
        self.staying = keep - self.odds  # of the even ones
        if self.staying < 0:
            raise NanocapError(
                f"merge keeps at least half of {tokens} tokens, not {keep}: merge in more blocks"
            )
        constants = {
            "of_channels": torch.ones(1, width),
            "of_evens": torch.ones(1, self.evens),
            "single": torch.ones(self.odds, 1),
            "earlier_odd": torch.ones(self.odds, self.odds).tril(-1),
            "earlier_even": torch.ones(self.evens, self.evens).tril(-1),
            # a number in the code would be a tensor outside the delegate
            "one": torch.ones(1),
            "large": torch.tensor([LARGE]),
            "leaving": torch.tensor([self.evens - self.staying - 1.0]),
            "slots": torch.arange(self.staying).float().unsqueeze(1),
        }
        for name, value in constants.items():
            self.register_buffer(name, value)

    def forward(
        self, keys_NC: Tensor, x_NC: Tensor, size_N1: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What remains, [keep, C], and how many tokens each stands for, [keep, 1].

        Args:
            keys_NC: the attention keys, whose cosine is compared.
            size_N1: how many each token stands for; None: one.
        """
        length = F.linear(keys_NC * keys_NC, self.of_channels).sqrt()
        even, odd = pairs(keys_NC / length.clamp(min=1e-6))
        similarity = product(even, odd.transpose(0, 1))  # [evens, odds]
        best = largest(similarity)  # [evens, 1]
        joins = ((similarity - best) * self.large + self.one).clamp(0, 1)  # where it is the best
        earlier = F.linear(joins, self.earlier_odd)
        joins = joins * (self.one - earlier).clamp(0, 1)  # of equal ones the first alone
        if self.staying:
            stays = self._least(best)
            rows = [self._places(stays), (joins * (self.one - stays)).transpose(0, 1)]
            assignment = torch.cat(rows)  # [keep, evens]
        else:
            assignment = joins.transpose(0, 1)
        if size_N1 is None:
            size, size_odd = F.linear(assignment, self.of_evens), self.single
        else:
            x_NC = x_NC * size_N1
            size_even, size_odd = pairs(size_N1)
            size = product(assignment, size_even)
        size = size + self._below(size_odd)
        x_even, x_odd = pairs(x_NC)
        return (product(assignment, x_even) + self._below(x_odd)) / size, size

    def _below(self, x_OC: Tensor) -> Tensor:
        """The odd tokens under a row of zeros for each even one that stays."""
        return F.pad(x_OC, (0, 0, self.staying, 0)) if self.staying else x_OC

    def _least(self, score_N1: Tensor) -> Tensor:
        """1 for the even tokens that stay, those with the lowest scores, else 0; [evens, 1]."""
        others = score_N1.reshape(1, self.evens)
        by = (others - score_N1) * self.large
        higher, not_lower = by.clamp(0, 1), (by + self.one).clamp(0, 1)
        beaten = higher + (not_lower - higher) * self.earlier_even
        rank = F.linear(beaten, self.of_evens)  # 0 for the highest
        return (rank - self.leaving).clamp(0, 1)

    def _places(self, chosen_N1: Tensor) -> Tensor:
        """[staying, evens]: row k has its one at the k-th chosen token."""
        chosen = chosen_N1.reshape(1, self.evens)
        before = F.linear(chosen, self.earlier_even)
        return (self.one - (before - self.slots).abs()).clamp(0, 1) * chosen


def pairs(x_NC: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens at even places and those at odd ones."""
    tokens, channels = x_NC.shape
    half = tokens // 2
    both = x_NC[: 2 * half].reshape(half, 2 * channels)
    even, odd = both[:, :channels], both[:, channels:]
    return (even if tokens == 2 * half else torch.cat([even, x_NC[2 * half :]])), odd


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product of what the photo gave; the delegate's `@` wants one side constant."""
    inner, columns = b.shape
    batched = torch.bmm(a.reshape(1, -1, inner), b.reshape(1, inner, columns))
    return batched.reshape(-1, columns)


def largest(x_NM: Tensor) -> Tensor:
    """The largest of each row, [N, 1], by halves."""
    while (columns := x_NM.shape[1]) > 1:
        half = (columns + 1) // 2  # an odd one out is in both halves
        x_NM = torch.maximum(x_NM[:, :half], x_NM[:, columns - half :])
    return x_NM
