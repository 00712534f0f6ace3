"""Quality of captions against references, by the field's own scorers (`pycocoevalcap`).

The PTB tokenizer and METEOR are Java programs that the package carries; they need a Java runtime.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nanocap.errors import MissingExtraError, NanocapError


@dataclass(frozen=True)
class Scores:
    """Scores over a set of photos. CIDEr, BLEU and ROUGE-L are times 100, as papers print them."""

    cider: float
    bleu4: float
    bleu1: float
    rouge_l: float
    distinct: int  # different captions among all
    photos: int


def score(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Scores:
    """Score one caption a photo against the photo's references.

    Args:
        captions: caption by key.
        references: references by the same keys.
    Raises:
        NanocapError: the keys differ, a photo has no references, there is none, or Java is missing.
        MissingExtraError: `pycocoevalcap` is not installed.
    """
    if captions.keys() != references.keys():
        stray = sorted(captions.keys() ^ references.keys())[0]
        raise NanocapError(f"{stray}: has a caption or references, but not both")
    if not captions:
        raise NanocapError("no photo has a caption to score")
    for key, texts in references.items():
        if not texts:
            raise NanocapError(f"{key}: has no reference captions")
    ours, theirs = tokenize(captions, references)
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise MissingExtraError("nanocap eval", "eval", "pycocoevalcap") from error
    bleu, _ = Bleu(4).compute_score(theirs, ours, verbose=0)
    cider, _ = Cider().compute_score(theirs, ours)
    rouge, _ = Rouge().compute_score(theirs, ours)
    return Scores(
        cider=100 * float(cider),
        bleu4=100 * bleu[3],
        bleu1=100 * bleu[0],
        rouge_l=100 * float(rouge),
        distinct=len(set(captions.values())),
        photos=len(captions),
    )


Tokenized = dict[str, list[str]]


def tokenize(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[Tokenized, Tokenized]:
    """Captions and references through the PTB tokenizer, punctuation removed.

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
    # one start of Java for both: the tokenizer is given a text a line
    texts = {(0, key): [text] for key, text in captions.items()}
    texts |= {(1, key): list(several) for key, several in references.items()}
    lines = {key: [{"caption": _one_line(text)} for text in texts[key]] for key in texts}
    words = PTBTokenizer().tokenize(lines)
    given, found = (sum(map(len, table.values())) for table in (lines, words))
    if given != found:
        raise NanocapError(
            f"the PTB tokenizer gave {found} of {given} texts back: check that `java` runs"
        )
    ours, theirs = ({k: words[s, k] for k in captions} for s in (0, 1))
    return ours, theirs


def _one_line(text: str) -> str:
    """Whatever ends a line for Java, inside a text, would shift all that follow."""
    return " ".join(text.split())
