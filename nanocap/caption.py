"""What a captioner answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    """One piece of the vocabulary that was chosen, and how sure the model was of it.

    Attributes:
        id: the piece's number in the vocabulary.
        piece: its text; U+2581 marks the start of a word.
        probability: 0 to 1, given everything before it.
    """

    id: int
    piece: str
    probability: float


@dataclass(frozen=True)
class Tag:
    """A word for something that the model finds in an image, whether the caption says it or not.

    Attributes:
        word: a noun, in the singular.
        probability: 0 to 1, as the model estimates it.
    """

    word: str
    probability: float


@dataclass(frozen=True)
class Caption:
    """A sentence about one image.

    Attributes:
        text: the sentence, with a capital and a full stop.
        confidence: 0 to 1, the probability that all is there that the caption names, as far as the
            bundle was calibrated (`nanocap calibrate`). With another bundle it is the geometric
            mean of the probabilities of the pieces and of the end, which ranks the captions of one
            model and is no chance of being right.
        tokens: the pieces that `text` was made from, in order.
        alternatives: other captions of the image, best first, where more than one was asked for.
        tags: words for what is in the image, the likeliest first; none with a model that knows
            none.
    """

    text: str
    confidence: float
    tokens: tuple[Token, ...] = ()
    alternatives: tuple[Caption, ...] = ()
    tags: tuple[Tag, ...] = ()

    def __str__(self) -> str:
        return self.text
