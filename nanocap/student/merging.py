"""Token merging and its rivals as pure functions of tensors.

Every reduction is an assignment matrix `A` [batch, keep, tokens] of zeros and ones: row `k` says
which input tokens make up output token `k`. Where each column sums to one, no mass is lost
(merging, pooling, clustering); where some columns are zero, tokens are dropped (pruning).
`apply_assignment` turns the matrix into a size-weighted mean, by one matrix product.

No `topk`, `sort`, `gather` or `scatter`: ranks come from pairwise comparison, so that ties fall to
the lower index on every backend and ONNX, Core ML and ExecuTorch all take the graph.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rank_descending(score_BN: Tensor) -> Tensor:
    """Rank of each score, 0 for the largest; of equal scores the lower index ranks first.

    Args:
        score_BN: float [batch, tokens].
    Returns:
        float [batch, tokens] of whole numbers, a permutation of 0..tokens-1 in each row.
    """
    ours, others = score_BN.unsqueeze(2), score_BN.unsqueeze(1)  # [B, N, 1], [B, 1, N]
    tokens = score_BN.shape[1]
    earlier = torch.ones(tokens, tokens, device=score_BN.device).tril(-1)  # other index < our index
    beaten = (others > ours).float() + (others == ours).float() * earlier
    return beaten.sum(2)


def one_hot(index_BN: Tensor, classes: int) -> Tensor:
    """float [batch, tokens, classes]; an index outside 0..classes-1 gives a row of zeros."""
    ticks = torch.arange(classes, device=index_BN.device, dtype=index_BN.dtype)
    return (index_BN.unsqueeze(2) == ticks).float()


def select(chosen_BN: Tensor, keep: int) -> Tensor:
    """Assignment matrix that keeps the chosen tokens in their original order.

    Args:
        chosen_BN: float [batch, tokens], 1 for exactly `keep` tokens of each row, else 0.
    Returns:
        float [batch, keep, tokens].
    """
    tokens = chosen_BN.shape[1]
    before = torch.ones(tokens, tokens, device=chosen_BN.device).triu(1)  # [j, i]: j < i
    slot = chosen_BN @ before  # how many chosen tokens stand before each
    return (one_hot(slot, keep) * chosen_BN.unsqueeze(2)).transpose(1, 2)


def bipartite_soft_matching(metric_BNC: Tensor, keep: int) -> Tensor:
    """Token merging (ToMe): tokens at even places merge into their most similar odd neighbour.

    The `tokens - keep` even tokens that are most similar to some odd token are merged into it.

    Args:
        metric_BNC: float [batch, tokens, channels], the attention keys; similarity is cosine.
        keep: tokens that remain, from `tokens // 2` to `tokens`.
    Returns:
        assignment [batch, keep, tokens]: first the even tokens that stay, then the odd ones.
    Source:
        Bolya et al., "Token Merging: Your ViT But Faster" (2023), section 3.
    """
    batch, tokens, _ = metric_BNC.shape
    unit = metric_BNC / metric_BNC.norm(dim=2, keepdim=True).clamp_min(1e-6)
    even, odd = unit[:, 0::2], unit[:, 1::2]
    evens, odds = even.shape[1], odd.shape[1]
    similarity = even @ odd.transpose(1, 2)  # [B, evens, odds]
    merged = tokens - keep
    stays = (rank_descending(similarity.amax(2)) >= merged).float()  # [B, evens]
    target = one_hot(similarity.argmax(2), odds)  # [B, evens, odds]
    staying = select(stays, keep - odds)  # [B, keep - odds, evens]
    joining = (target * (1 - stays).unsqueeze(2)).transpose(1, 2)  # [B, odds, evens]
    from_even = torch.cat([staying, joining], dim=1)  # [B, keep, evens]
    own = torch.eye(odds, device=metric_BNC.device).expand(batch, odds, odds)
    from_odd = torch.cat([torch.zeros_like(staying[:, :, :1]).expand(-1, -1, odds), own], dim=1)
    if evens > odds:  # an odd number of tokens leaves one even token without a partner's column
        from_odd = torch.cat([from_odd, torch.zeros_like(from_odd[:, :, :1])], dim=2)
    columns = torch.stack([from_even, from_odd], dim=3).reshape(batch, keep, 2 * evens)
    return columns[:, :, :tokens]


def apply_assignment(
    assignment_BKN: Tensor, x_BNC: Tensor, size_BN1: Tensor
) -> tuple[Tensor, Tensor]:
    """Size-weighted mean of the tokens that each row assigns, and the new sizes.

    Args:
        assignment_BKN: float [batch, keep, tokens] of zeros and ones.
        x_BNC: [batch, tokens, channels].
        size_BN1: [batch, tokens, 1], how many original tokens each stands for.
    Returns:
        tokens [batch, keep, channels] in the dtype of `x_BNC`, sizes [batch, keep, 1].
    """
    size = assignment_BKN @ size_BN1
    weight = assignment_BKN * size_BN1.transpose(1, 2) / size
    return weight.to(x_BNC.dtype) @ x_BNC, size
