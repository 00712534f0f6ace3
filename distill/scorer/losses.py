"""The three terms of a scorer's loss, as pure functions of tensors.

Nie et al., "LightCLIP: Learning Multi-Level Interaction for Lightweight Vision-Language Models"
(2023): contrast with softened negatives, matching of tokens, masked language modelling.
B photos, R texts, N visual tokens, T pieces, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NEVER = -1e9  # a logit that no softmax gives any weight


def soft_targets(positive_BR: Tensor, share: float, likeness_BR: Tensor | None = None) -> Tensor:
    """What a softmax over the texts of each photo should say: most to its own, a little to others.

    Captions of other photos are often true of this one too, so `share` of the mass goes to them:
    evenly, or more to those that resemble its own.

    Args:
        positive_BR: bool, whether the text was written about the photo; one at least in each row.
        share: mass of the negatives, 0 to 1. A row without negatives keeps all on its positives.
        likeness_BR: logits by which the negatives divide their share; None divides evenly.
    Returns:
        float [B, R]; rows sum to 1.
    """
    own = positive_BR.float()
    own = own / own.sum(1, keepdim=True)
    logits = torch.zeros_like(own) if likeness_BR is None else likeness_BR.float()
    others = logits.masked_fill(positive_BR, NEVER).softmax(1).masked_fill(positive_BR, 0.0)
    given = share * (~positive_BR).any(1, keepdim=True).float()
    return (1 - given) * own + given * others


def likeness(text_RD: Tensor, image_R: Tensor, photos: int) -> Tensor:
    """Mean cosine of each text with the texts of each photo: [B, R], without a gradient.

    Args:
        text_RD: embeddings of length 1.
        image_R: int64, the photo of each text.
        photos: B.
    """
    member = F.one_hot(image_R, photos).T.float()  # [B, R]
    member = member / member.sum(1, keepdim=True).clamp_min(1)
    text = text_RD.detach().float()
    return member @ (text @ text.T)


def contrast(logits_BR: Tensor, targets_BR: Tensor) -> Tensor:
    """Mean divergence of the softmax over each row from its target: zero where they agree.

    InfoNCE (van den Oord et al. 2018) less the entropy of the targets, which no weight changes.

    Args:
        logits_BR: scaled similarities.
        targets_BR: rows sum to 1, as of `soft_targets`.
    """
    return F.kl_div(logits_BR.float().log_softmax(1), targets_BR, reduction="batchmean")


def masked_language(logits_MV: Tensor, pieces_M: Tensor) -> Tensor:
    """Mean cross-entropy in nats of hidden pieces (Devlin et al., "BERT", 2018); zero of none."""
    if not len(pieces_M):
        return logits_MV.sum()
    return F.cross_entropy(logits_MV, pieces_M)
