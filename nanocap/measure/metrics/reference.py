"""The field's own scores against references, by `pycocoevalcap`, photo by photo.

The PTB tokenizer, METEOR and SPICE are Java programs that the package carries; they need a Java
runtime, and SPICE needs models that its authors publish apart. A score that cannot be had says why.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanocap.errors import MissingExtraError, NanocapError
from nanocap.measure.metrics.measures import Floats, Measure, SumMeasure, mean_measure

MODELS = "stanford-corenlp-3.6.0-models.jar"  # that SPICE parses with
SMALL, TINY = 1e-9, 1e-15  # what BLEU's reference implementation adds against zero

Tokenized = dict[str, list[str]]


@dataclass(frozen=True)
class Missing:
    """A score that cannot be computed here, and why."""

    label: str
    reason: str


def reference_measures(
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    scorers: Collection[str] | None = None,
) -> list[Measure | Missing]:
    """CIDEr, BLEU-1 to 4, ROUGE-L, METEOR and SPICE, all times 100, as papers print them.

    Args:
        captions, references: by the same keys.
        scorers: keys of `SCORERS`; all by default.
    Raises:
        NanocapError: the keys differ, a photo has no references, there is none, or Java is missing.
        MissingExtraError: `pycocoevalcap` is not installed.
    """
    check_keys(captions, references)
    ours, theirs = tokenize(captions, references)
    found: list[Measure | Missing] = []
    for name, scorer in SCORERS.items():
        if scorers is None or name in scorers:
            found += scorer(ours, theirs)
    return found


def check_keys(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    """Refuse what cannot be scored.

    Raises:
        NanocapError: the keys differ, a photo has no references, or there is none.
    """
    if captions.keys() != references.keys():
        stray = sorted(captions.keys() ^ references.keys())[0]
        raise NanocapError(f"{stray}: has a caption or references, but not both")
    if not captions:
        raise NanocapError("no photo has a caption to score")
    for key, texts in references.items():
        if not texts:
            raise NanocapError(f"{key}: has no reference captions")


def cider(ours: Tokenized, theirs: Tokenized) -> list[Measure | Missing]:
    """CIDEr (Vedantam et al., 2015); its document frequencies come from these references."""
    from pycocoevalcap.cider.cider import Cider

    _, scores = Cider().compute_score(theirs, ours)
    return [mean_measure("cider", "CIDEr", scores, 100)]


def bleu(ours: Tokenized, theirs: Tokenized) -> list[Measure | Missing]:
    """BLEU-1 to 4 (Papineni et al., 2002) with the closest reference's length, over the corpus."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for key, [caption] in ours.items():
        scorer += (caption, theirs[key])
    rows = []
    for counts in scorer.ctest:
        length = counts["testlen"]
        closest = min((abs(other - length), other) for other in counts["reflen"])[1]
        rows.append([*counts["correct"], *counts["guess"], length, closest])
    sums = np.array(rows, np.float64)
    return [SumMeasure(f"bleu{n}", f"BLEU-{n}", sums, _Bleu(n)) for n in range(1, 5)]


@dataclass(frozen=True)
class _Bleu:
    """100 BLEU-n of sums [..., 10]: four of correct n-grams, four of all, both lengths."""

    n: int

    def __call__(self, sums: Floats) -> Floats:
        precision = (sums[..., : self.n] + TINY) / (sums[..., 4 : 4 + self.n] + SMALL)
        ratio = (sums[..., 8] + TINY) / (sums[..., 9] + SMALL)
        brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
        score: Floats = 100 * brevity * precision.prod(-1) ** (1 / self.n)
        return score


def rouge(ours: Tokenized, theirs: Tokenized) -> list[Measure | Missing]:
    """ROUGE-L (Lin, 2004)."""
    from pycocoevalcap.rouge.rouge import Rouge

    _, scores = Rouge().compute_score(theirs, ours)
    return [mean_measure("rouge_l", "ROUGE-L", scores, 100)]


def meteor(ours: Tokenized, theirs: Tokenized) -> list[Measure | Missing]:
    """METEOR 1.5 (Denkowski and Lavie, 2014).

    It aggregates alignments over the corpus; the interval is that of the photos' own scores.
    """
    from pycocoevalcap.meteor.meteor import Meteor

    try:
        scorer = Meteor()
        try:
            total, scores = scorer.compute_score(theirs, ours)
        finally:
            if scorer.lock.locked():  # a failure leaves it so, and its destructor waits for it
                scorer.lock.release()
            with contextlib.suppress(OSError):  # a pipe that broke
                scorer.meteor_p.stdin.close()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return [Missing("METEOR", f"its Java program failed ({error})")]
    mean = mean_measure("meteor", "METEOR", scores, 100)
    shift = 100 * (total - float(np.mean(scores)))
    return [SumMeasure(mean.key, mean.label, mean.sums, mean.value, offset=shift)]


def spice(ours: Tokenized, theirs: Tokenized) -> list[Measure | Missing]:
    """SPICE (Anderson et al., 2016), where its parser's models are installed."""
    from pycocoevalcap.spice import spice as module

    models = Path(module.__file__).parent / "lib" / MODELS
    if not models.exists():  # its constructor would fetch them from the network
        return [
            Missing("SPICE", f"its parser's models are missing: put {MODELS} in {models.parent}")
        ]
    try:
        _, scores = module.Spice().compute_score(theirs, ours)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return [Missing("SPICE", f"its Java program failed ({error})")]
    # it answers in the order of the sorted keys
    by_key = dict(zip(sorted(ours), (float(score["All"]["f"]) for score in scores), strict=True))
    return [mean_measure("spice", "SPICE", [by_key[key] for key in ours], 100)]


SCORERS: dict[str, Callable[[Tokenized, Tokenized], list[Measure | Missing]]] = {
    "cider": cider,
    "bleu": bleu,
    "rouge": rouge,
    "meteor": meteor,
    "spice": spice,
}


def tokenize(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[Tokenized, Tokenized]:
    """Captions and references, each by keys of their own, through the PTB tokenizer.

    Punctuation is removed.

    Raises:
        NanocapError: Java is missing or does not run.
        MissingExtraError: `pycocoevalcap` is not installed.
    """
    try:
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    except ImportError as error:
        raise MissingExtraError("nanocap eval", "eval", "pycocoevalcap") from error
    if shutil.which("java") is None:
        raise NanocapError(
            "the PTB tokenizer needs Java: install it (apt-get install default-jre-headless)"
        )
    # one start of Java for both: the tokenizer is given a text a line, and whatever ends a line for
    # Java inside a text would shift all that follow
    texts = {(0, key): [text] for key, text in captions.items()}
    texts |= {(1, key): list(several) for key, several in references.items()}
    lines = {key: [{"caption": " ".join(text.split())} for text in texts[key]] for key in texts}
    words = PTBTokenizer().tokenize(lines)
    given, found = (sum(map(len, table.values())) for table in (lines, words))
    if given != found:
        raise NanocapError(
            f"the PTB tokenizer gave {found} of {given} texts back: check that `java` runs"
        )
    # METEOR separates its fields by this mark
    clean = {key: [" ".join(w.replace("|||", " ").split()) for w in words[key]] for key in words}
    ours = {key: clean[0, key] for key in captions}
    theirs = {key: clean[1, key] for key in references}
    return ours, theirs


def oracle_measure(
    candidates: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]]
) -> Measure:
    """CIDEr (times 100) of each photo's best candidate: how much a better choice could gain.

    Raises:
        NanocapError: Java is missing or does not run.
        MissingExtraError: `pycocoevalcap` is not installed.
    """
    most = max(map(len, candidates.values()))
    single = {
        f"{n} {key}": texts[n] for key, texts in candidates.items() for n in range(len(texts))
    }
    ours, theirs = tokenize(single, references)
    from pycocoevalcap.cider.cider import Cider

    # every place is scored against all references, so that their document frequencies are the same
    best = np.full(len(candidates), -np.inf)
    for n in range(most):
        words = {key: ours[f"{min(n, len(texts) - 1)} {key}"] for key, texts in candidates.items()}
        _, scores = Cider().compute_score({key: theirs[key] for key in words}, words)
        best = np.maximum(best, scores)
    return mean_measure("oracle_cider", f"CIDEr, best of {most}", best, 100)
