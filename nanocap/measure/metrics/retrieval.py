"""How often a caption picks its own photo out of a hundred: does it say what tells them apart?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nanocap.measure.metrics.measures import Floats, Measure, mean_measure

OTHERS = 99  # photos that a caption chooses from, beside its own


def retrieval_measures(
    similarity: npt.NDArray[np.floating], people: npt.NDArray[np.floating] | None = None
) -> list[Measure]:
    """Recall at 1 of photos by their captions, in percent.

    Args:
        similarity: [captions, photos] by an image-text scorer; a caption and its photo have the
            same index.
        people: the same with a reference in the place of each caption: what the scorer can tell
            at best, to read the other figure by.
    """
    among = min(OTHERS, len(similarity) - 1) + 1
    rows = [("retrieval_r1", "retrieval R@1", similarity, 1)]
    if people is not None:
        rows.append(("retrieval_r1_people", "the same of references", people, 0))
    return [
        mean_measure(key, f"{label} of {among} (%)", recall_at_one(values), 100, better)
        for key, label, values, better in rows
    ]


def recall_at_one(similarity: npt.NDArray[np.floating], others: int = OTHERS) -> Floats:
    """The chance of each caption to score its own photo above `others` that are drawn at random.

    Nothing is drawn: with w photos of P - 1 at least as similar as the right one, none of them is
    among k with the chance C(P-1-w, k) / C(P-1, k). A tie is a miss, so that a scorer that tells
    nothing apart gets zero.

    Args:
        similarity: [P, P], of each caption with each photo.
        others: k; all other photos where there are fewer.
    Returns:
        [P], from 0 to 1.
    Raises:
        ValueError: it is not square, or there are fewer than two photos.
    """
    photos = len(similarity)
    if similarity.shape != (photos, photos) or photos < 2:
        raise ValueError(f"similarity must be [P, P] of two photos or more: {similarity.shape}")
    own = np.diagonal(similarity)[:, None]
    rivals = (similarity >= own).sum(1) - 1
    drawn, rest = min(others, photos - 1), np.arange(photos)
    # C(n-w, k) / C(n, k) as a product over the w rivals, each of which has to be left out
    kept = np.maximum(photos - 1 - drawn - rest, 0) / np.maximum(photos - 1 - rest, 1)
    chances = np.concatenate([[1.0], np.cumprod(kept)])
    return np.asarray(chances[rivals], np.float64)
