"""Fewer worn phrases, without a step of training: the last bias is fitted to what people say.

Likelihood, beams and CIDEr wear the language of a captioner down to a few phrases ("on top of a").
A word of each becomes dearer, by as much as the phrase is said too often: logit adjustment (Menon
et al. 2021, arXiv 2007.07314), which in captioning brings back words that rewards drove out (Honda
et al. 2023, arXiv 2212.03230). Embeddings are tied, so the logits have no bias of their own; the
norm before them has one, of a number for each channel. It is fitted so that the logits of the worn
words fall and those of the others stay, which no backend notices.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nanocap.distill.data.augment import squash
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.feature_cache import normalize
from nanocap.distill.teachers.rollout import beam_search, to_texts
from nanocap.measure.metrics.facts import extract
from nanocap.measure.metrics.phrases import worn_phrases
from nanocap.progress import Progress
from nanocap.student import Student

PHOTOS = 250  # of each source that are captioned in a round
CHUNK, BEAMS = 50, 3
ALLOWED = 5.0  # points that a phrase may stand in more captions than in people's
COMMON = 0.2  # of people's captions; words of more are left alone, since grammar needs them
HALF = 0.5  # share of a phrase's excess that a round takes away
RIDGE = 1e-3  # of the mean square of the weighted embeddings
DEARER = 30.0  # weight of the worn words in the fit


@dataclass(frozen=True)
class Told:
    """Photos of a source that were trained on, with people's captions."""

    rows: Sequence[int]
    captions: Mapping[str, Sequence[str]]  # by the row's number


@torch.no_grad()
def reword(student: Student, corpus: Corpus, sources: Sequence[str], rounds: int) -> None:
    """Fit the last bias of `student`, in place.

    Args:
        sources: whose training photos show what is worn; at least one.
        rounds: of captioning them; each takes half of what is left of an excess.
    """
    student.eval()
    told = [_told(corpus, source) for source in sources]
    decoder = student.decoder
    embedding, copying = decoder.embedding.weight, decoder.copying
    wanted, done = torch.zeros(len(embedding)), torch.zeros(embedding.shape[1])
    shown = Progress(rounds, "fitting the last bias", plain=True)
    for _ in shown.over(range(rounds)):
        usage = torch.zeros(len(embedding))
        costs: dict[int, float] = {}
        for source in told:
            said = _captions(student, corpus, source.rows)
            for piece, cost in worn_pieces(said, source.captions, corpus).items():
                costs[piece] = max(costs.get(piece, 0.0), cost)
            usage += _usage(said.values(), corpus) / len(told)
            usage += _usage((c for some in source.captions.values() for c in some), corpus) / len(
                told
            )
        for piece, cost in costs.items():
            wanted[piece] -= cost
        change = last_bias(embedding, wanted, usage) - done
        decoder.norm.bias.add_(change)
        if copying is not None:  # it copies as before
            copying.query.bias.sub_(copying.query.weight @ change)
        done = done + change


def worn_pieces(
    said: Mapping[str, str], people: Mapping[str, Sequence[str]], corpus: Corpus
) -> dict[int, float]:
    """By how much a piece of each worn phrase is to become dearer, in nats.

    It is the piece of the word that people say least, unless it names an object: these are wrong or
    right, not worn.
    """
    written = [set(caption.split()) for some in people.values() for caption in some]
    share = {word: n / len(written) for word, n in Counter(w for c in written for w in c).items()}
    costs: dict[int, float] = {}
    for phrase in worn_phrases(said, people, 60):
        if phrase.excess <= ALLOWED:
            break
        words = [
            word
            for word in phrase.text.split()
            if share.get(word, 0.0) < COMMON and not extract(word).objects
        ]
        if not words:
            continue
        ids = corpus.tokenizer.encode(min(words, key=lambda word: share.get(word, 0.0))).ids
        if len(ids) == 1:
            cost = HALF * math.log(phrase.ours / (phrase.people + ALLOWED))
            costs[ids[0]] = max(costs.get(ids[0], 0.0), cost)
    return costs


def last_bias(embedding_VC: Tensor, wanted_V: Tensor, usage_V: Tensor) -> Tensor:
    """The change [C] of the bias before the tied embedding that best changes logits as is wanted.

    Args:
        usage_V: how often each piece is said; the logits of pieces that are said are held hardest.
    """
    weight = usage_V / usage_V.mean() + 0.05
    weight = torch.where(wanted_V < 0, DEARER * weight.clamp_min(1.0), weight).double()
    embedding = embedding_VC.double()
    gram = embedding.T @ (weight.unsqueeze(1) * embedding)
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, embedding.T @ (weight * wanted_V)).float()


def _told(corpus: Corpus, source: str) -> Told:
    rows = [row for row in corpus.training() if corpus.rows[row].source == source]
    some = [
        rows[place] for place in np.linspace(0, len(rows) - 1, min(PHOTOS, len(rows)), dtype=int)
    ]
    return Told(some, {str(row): corpus.rows[row].captions for row in some})


def _captions(student: Student, corpus: Corpus, rows: Sequence[int]) -> dict[str, str]:
    """What the student says of photos, by their rows' numbers."""
    size = student.dimensions.image_size
    said: dict[str, str] = {}
    for first in range(0, len(rows), CHUNK):
        some = rows[first : first + CHUNK]
        pixels = normalize(np.stack([squash(corpus.photo(row), size) for row in some]))
        found = beam_search([student], pixels, BEAMS)
        texts = to_texts(corpus.tokenizer, [beams[0].ids for beams in found])
        said.update(zip(map(str, some), texts, strict=True))
    return said


def _usage(captions: Iterable[str], corpus: Corpus) -> Tensor:
    """Which share of the captions has each piece."""
    texts = list(captions)
    counts = torch.zeros(corpus.tokenizer.get_vocab_size())
    for encoded in corpus.tokenizer.encode_batch(texts):
        counts[list(set(encoded.ids))] += 1
    return counts / len(texts)
