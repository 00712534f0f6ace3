"""Any image-to-text model of Hugging Face transformers as a teacher."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from nanocap.distill.teachers import Scored, distinct
from nanocap.distill.teachers.families import Family, family_of
from nanocap.distill.teachers.merging import TokenMerging
from nanocap.distill.teachers.settings import DEFAULTS, Settings
from nanocap.errors import DataError, MissingExtraError, NanocapError

LONGEST = 64  # tokens of a caption, unless said otherwise
UNUSED = ("labels",)  # what PaliGemma's processor adds for training


@dataclass(eq=False)
class HfTeacher:
    """Beam search with a model of any family."""

    name: str  # with the prompt in it where that is not the family's
    model: Any
    processor: Any
    family: Family
    prompt: str
    longest: int = LONGEST  # tokens of a caption; longer answers end with a whole sentence
    merging: TokenMerging | None = None  # of the visual tokens in its vision tower

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image], n: int) -> list[list[Scored]]:
        """At most `n` different captions of each photo, best first.

        A score is the log probability of the tokens over their number. There are two beams at
        least, as only beam search tells scores. Its distributions are kept until a batch is done:
        `longest` fp32 numbers a photo, a beam and an entry of the vocabulary.

        Raises:
            OptionError: the family takes no prompt, but there is one.
        """
        inputs = self.family.inputs(self.processor, list(images), self.prompt)
        if self.merging is not None:
            inputs = self.merging.shorten(inputs)
        inputs = inputs.to(self.model.device, self.model.dtype)  # only floats change their type
        found = self.model.generate(
            **{name: value for name, value in inputs.items() if name not in UNUSED},
            do_sample=False,
            num_beams=max(2, n),
            num_return_sequences=n,
            length_penalty=1.0,
            max_new_tokens=self.longest,
            return_dict_in_generate=True,
            output_scores=True,
        )
        texts = self._texts(found.sequences, found.beam_indices)
        rows = list(zip(texts, found.sequences_scores.tolist(), strict=True))
        return [distinct(rows[first : first + n]) for first in range(0, len(rows), n)]

    def _texts(self, sequences: Tensor, beams: Tensor) -> list[str]:
        """What was generated, without the prompt.

        Args:
            sequences: [rows, prompt + longest answer]; families differ in what of the prompt
                stands in it.
            beams: [rows, longest answer], negative after the end.
        """
        answers = sequences[:, sequences.shape[1] - beams.shape[1] :]
        lengths = (beams >= 0).sum(1).tolist()
        texts = self.processor.tokenizer.batch_decode(
            [ids[:length] for ids, length in zip(answers.tolist(), lengths, strict=True)],
            skip_special_tokens=True,
        )
        return [
            _whole_sentences(text) if length == self.longest else text
            for text, length in zip((" ".join(t.split()) for t in texts), lengths, strict=True)
        ]


def _whole_sentences(text: str) -> str:
    """An answer that was cut off, up to the end of its last sentence if it has one."""
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s|$)", text)]
    return text[: ends[-1]] if ends else text


def load(rest: str, settings: Settings = DEFAULTS) -> HfTeacher:
    """`hf:ID_OR_PATH`: a folder that `save_pretrained` wrote, or a name on the hub.

    No code that comes with a model is run. A name is downloaded by transformers, once.

    Raises:
        MissingExtraError: transformers is not installed.
        OptionError: the model does not make text of images.
        DataError: it cannot be loaded.
    """
    try:
        from transformers import AutoConfig, AutoModelForImageTextToText

        from nanocap.distill.teachers.processors import load_processor
    except ModuleNotFoundError as error:
        raise MissingExtraError("a teacher hf:ID_OR_PATH", "teachers", error.name) from error
    if rest.startswith(("/", "./", "../")) and not Path(rest).is_dir():
        raise DataError(f"hf:{rest}: no such folder; name one, or a model of the Hugging Face hub")
    device = settings.on_device()
    try:
        config = AutoConfig.from_pretrained(rest, trust_remote_code=False)
        family = family_of(config.model_type)
        processor = load_processor(rest, config)
        model = AutoModelForImageTextToText.from_pretrained(
            rest, dtype=settings.weights_dtype(device), trust_remote_code=False
        )
    except NanocapError:
        raise
    except Exception as error:  # the library raises many kinds, down to network errors
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(f"hf:{rest}: cannot be loaded ({first})") from error
    prompt = family.prompt if settings.prompt is None else settings.prompt
    asked = "" if settings.prompt is None else f" asked {settings.prompt!r}"
    merging = TokenMerging(model, settings.merge) if settings.merge != 1 else None
    merged = "" if merging is None else f" merged to {settings.merge}"
    model = model.to(device).eval()
    name = f"hf:{rest}{asked}{merged}"
    return HfTeacher(name, model, processor, family, prompt, merging=merging)
