"""The dimensions of a student: one frozen record that travels in the checkpoint and the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from nanocap.errors import NanocapError


@dataclass(frozen=True)
class Widths:
    """Channels inside attentions and MLPs, where a student was pruned.

    An attention's are those of all its heads together. The decoder's layers share two numbers, so
    that caches and what is kept of a photo stay one tensor each.
    """

    encoder_attention: tuple[int, ...]  # of each block
    encoder_mlp: tuple[int, ...]
    decoder_attention: int
    cross_attention: int
    decoder_mlp: tuple[int, ...]  # of each layer

    @classmethod
    def from_dict(cls, values: object) -> Widths:
        """The inverse of `asdict`, lists for tuples.

        Raises:
            NanocapError: a key is missing or unknown, or a value is no whole number.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping) or sorted(values) != sorted(names):
            raise NanocapError(f"dimension 'pruned' must be a table of {', '.join(names)}")
        for name in names:
            shared = name in SHARED
            several = values[name] if not shared else [values[name]]
            # `type` rather than `isinstance`: a truth value is no count
            if not isinstance(several, list | tuple) or any(type(v) is not int for v in several):
                what = "a whole number" if shared else "a list of whole numbers"
                raise NanocapError(f"dimension 'pruned.{name}' must be {what}")
        given: dict[str, Any] = {n: v if n in SHARED else tuple(v) for n, v in values.items()}
        return cls(**given)


OF_EVIDENCE = ("evidence", "concepts", "words")
SHARED = ("decoder_attention", "cross_attention")  # by all layers


@dataclass(frozen=True)
class Dimensions:
    """What must be known to rebuild a student around its weights.

    `keep` names, for each encoder block, how many visual tokens leave it; the reducer named by
    `reducer` does the reduction between the block's attention and its MLP, as in ToMe. `pruned`
    says what is left inside attentions and MLPs; None: all of it.
    """

    trunk: str = "lite0"
    image_size: int = 224  # pixels, square
    width: int = 256  # channels of every token
    heads: int = 4
    encoder_blocks: int = 2
    decoder_layers: int = 3
    mlp_ratio: int = 4
    vocabulary: int = 4096
    max_tokens: int = 40  # decoder positions: two control tokens, the text, the end
    reducer: str = "merge"
    keep: tuple[int, ...] = (98, 49)
    evidence: int = 0  # words that the decoder is told of; 0: there is no concept head
    concepts: int = 0  # words that it may be told of
    words: int = 0  # of these, the ones that are learned from captions
    pruned: Widths | None = None

    def __post_init__(self) -> None:
        least = {"encoder_blocks": 0, "max_tokens": 3, "evidence": 0, "concepts": 0, "words": 0}
        for name in (field.name for field in fields(self) if field.type == "int"):
            if getattr(self, name) < least.get(name, 1):
                raise NanocapError(
                    f"{name} must be at least {least.get(name, 1)}, not {getattr(self, name)}"
                )
        if self.width % self.heads:
            raise NanocapError(f"width {self.width} is not a multiple of heads {self.heads}")
        if len(self.keep) != self.encoder_blocks:
            raise NanocapError(
                f"keep {list(self.keep)} must name one token count for each of the "
                f"{self.encoder_blocks} encoder blocks"
            )
        if not self.evidence <= self.concepts or not self.words <= self.concepts:
            raise NanocapError(
                f"evidence {self.evidence} and words {self.words} must not be above concepts"
                f" {self.concepts}"
            )
        if self.image_size % 32:
            raise NanocapError(f"image_size {self.image_size} is not a multiple of 32")
        counts = (self.grid**2, *self.keep)
        if any(after > before or after < 1 for before, after in pairwise(counts)):
            raise NanocapError(f"keep {list(self.keep)} must not grow and starts at {self.grid**2}")
        if self.pruned is not None:
            self._check_widths(self.pruned)

    @property
    def grid(self) -> int:
        """Side of the trunk's map at stride 16: 14 at 224 pixels."""
        return self.image_size // 16

    @property
    def visual_tokens(self) -> int:
        """Tokens that the encoder makes of a photo."""
        return self.keep[-1] if self.keep else self.grid**2

    @property
    def memory_tokens(self) -> int:
        """Tokens that the decoder attends to: visual ones and evidence."""
        return self.visual_tokens + self.evidence

    @property
    def whole(self) -> Widths:
        """Channels inside attentions and MLPs of a student that was not pruned."""
        inner = self.width * self.mlp_ratio
        return Widths(
            encoder_attention=(self.width,) * self.encoder_blocks,
            encoder_mlp=(inner,) * self.encoder_blocks,
            decoder_attention=self.width,
            cross_attention=self.width,
            decoder_mlp=(inner,) * self.decoder_layers,
        )

    @property
    def widths(self) -> Widths:
        """Channels inside attentions and MLPs."""
        return self.whole if self.pruned is None else self.pruned

    def _check_widths(self, pruned: Widths) -> None:
        theirs, most = asdict(pruned), asdict(self.whole)
        for name, whole in most.items():
            step = self.heads if name.endswith("attention") else 1
            values, limits = ((each,) if name in SHARED else each for each in (theirs[name], whole))
            if len(values) != len(limits):
                raise NanocapError(f"pruned.{name} must have {len(limits)} entries")
            for value, limit in zip(values, limits, strict=True):
                if value % step or not step <= value <= limit:
                    raise NanocapError(
                        f"pruned.{name} {value} is not a multiple of {step} from {step} to {limit}"
                    )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary; what a student does not have is left out."""
        values = {**asdict(self), "keep": list(self.keep)}
        if not self.evidence:
            values = {name: value for name, value in values.items() if name not in OF_EVIDENCE}
        pruned = values.pop("pruned")
        if pruned is None:
            return values
        lists = {n: list(v) if isinstance(v, tuple) else v for n, v in pruned.items()}
        return {**values, "pruned": lists}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Dimensions:
        """The inverse of `to_dict`.

        Raises:
            NanocapError: a key is unknown or a value does not fit.
        """
        types = {field.name: type(field.default) for field in fields(cls)}
        unknown = sorted(set(values) - set(types))
        if unknown:
            known = ", ".join(sorted(types))
            raise NanocapError(f"unknown dimension {unknown[0]!r}; known are {known}")
        for name, value in values.items():
            if name == "pruned":
                continue
            if name == "keep":
                # `type` rather than `isinstance`: a truth value is no count
                if not isinstance(value, list | tuple) or any(type(v) is not int for v in value):
                    raise NanocapError(
                        f"dimension 'keep' must be a list of whole numbers, not {value!r}"
                    )
            elif type(value) is not types[name]:
                raise NanocapError(
                    f"dimension {name!r} must be of type {types[name].__name__}, not {value!r}"
                )
        given = {**values, "keep": tuple(values.get("keep", cls.keep))}
        if "pruned" in values:
            given["pruned"] = Widths.from_dict(values["pruned"])
        return cls(**given)


#: Sizes by name: about 5, 10 and 25 million parameters with a vocabulary of 4,096 pieces.
PRESETS: dict[str, Dimensions] = {
    "nano-xs": Dimensions(width=192, heads=3, encoder_blocks=1, decoder_layers=2, keep=(98,)),
    "nano-s": Dimensions(),
    "nano-m": Dimensions(
        trunk="lite2", width=384, heads=6, encoder_blocks=3, decoder_layers=6, keep=(147, 98, 49)
    ),
}
