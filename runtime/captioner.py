"""`Captioner`: a bundle, an engine and a search behind one call."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from functools import partial
from typing import Any, cast, overload

import numpy as np
import numpy.typing as npt

from nanocap.bounds import (
    BATCH,
    MAX_BATCH,
    MAX_LENGTH_PENALTY,
    MAX_PIXELS,
    number,
    text,
    whole,
)
from nanocap.bundle import Bundle, default_bundle
from nanocap.bundle.manifest import Artifact, Manifest
from nanocap.bundle.vocabulary import Vocabulary
from nanocap.caption import Caption, Tag, Token
from nanocap.errors import EngineWarning, ImageError, OptionError
from nanocap.image.image import load_image
from nanocap.image.source import ImageSource, is_one_image
from nanocap.runtime.choice import budgets, choose
from nanocap.runtime.constraints import Constraints
from nanocap.runtime.engines.providers import Providers
from nanocap.runtime.loaded import Loaded, one_a_core
from nanocap.runtime.search import Answer, Hypothesis, Options, vouched

Pixels = npt.NDArray[np.uint8]
TIMED = 3  # captions that are timed for a deadline
MOST_ROWS = 256  # images times beams through the decoder at once: 130 MB with the bundled model


class Captioner:
    """Captions images with the model of a bundle. Calls may come from several threads.

    It can be copied and pickled, and used in a forked process: each loads the model once more.

    Args:
        bundle: a bundle's folder or `.zip`, or an opened `Bundle`; default: the model inside the
            package.
        engine: take the first artifact of this backend, such as `onnx`; default: the first.
        artifact: take the artifact of this name, such as `onnx-int8`.
        tokens: take the first artifact with so many visual tokens.
        deadline_ms: of the artifacts that differ from the one chosen in visual tokens alone, take
            that with the most which captions the bundle's golden image within so many milliseconds:
            the median of three, from pixels to text, alone, with the bundle's default search. It is
            measured now, which takes a few captions' time, and is no promise: a photo of a longer
            caption, or a busier machine, takes longer. Where none is fast enough, that with the
            fewest runs, and there is an EngineWarning.
        providers: hardware that ONNX Runtime uses before the CPU, such as `cuda`; see
            `runtime.providers`. What is not available gives an EngineWarning, and the CPU runs.
        strict_providers: raise EngineError instead.
        threads: of the engine; default: as many as it thinks right. More than there are cores are
            lowered to that, with an EngineWarning.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        BundleError: the bundle is missing, altered or unsafe.
        OptionError: it has no such artifact, or options exclude each other.
        EngineError, MissingExtraError: the engine cannot run it.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        *,
        engine: str | None = None,
        artifact: str | None = None,
        tokens: int | None = None,
        deadline_ms: float | None = None,
        providers: Sequence[str] = (),
        strict_providers: bool = False,
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        threads = None if threads is None else one_a_core(threads)
        self.max_pixels = whole("max_pixels", max_pixels, 1)
        if deadline_ms is not None and (artifact is not None or tokens is not None):
            raise OptionError("deadline_ms chooses the artifact: leave artifact and tokens out")
        if deadline_ms is not None and not number("deadline_ms", deadline_ms, 0) > 0:
            raise OptionError(f"deadline_ms must be above 0, got {deadline_ms}")
        if isinstance(providers, str) or not isinstance(providers, Sequence):
            raise OptionError(f"providers must be a list of names, got {providers!r}")
        tokens = None if tokens is None else whole("tokens", tokens, 1)
        wanted = Providers(tuple(providers), strict_providers)
        opened = bundle if isinstance(bundle, Bundle) else _opened(bundle)
        self.manifest: Manifest = opened.manifest
        chosen = choose(self.manifest, engine, artifact, tokens)
        if deadline_ms is None:
            self._model = Loaded(opened, chosen, threads, wanted)
        else:
            candidates = budgets(self.manifest, chosen)
            models = (Loaded(opened, one, threads, wanted) for one in candidates)
            self._model = self._fast_enough(models, deadline_ms)

    @classmethod
    def of(cls, model: Loaded, *, max_pixels: int = MAX_PIXELS) -> Captioner:
        """A captioner with a model that is loaded already."""
        captioner = cls.__new__(cls)
        captioner.manifest = model.bundle.manifest
        captioner.max_pixels = max_pixels
        captioner._model = model
        return captioner

    @property
    def artifact(self) -> Artifact:
        """The artifact that runs."""
        return self._model.artifact

    @property
    def vocabulary(self) -> Vocabulary:
        """Its pieces."""
        return self.manifest.vocabulary

    def _fast_enough(self, models: Iterable[Loaded], deadline_ms: float) -> Loaded:
        """The first that captions in time, else the last, with a warning."""
        for model in models:
            self._model = model
            taken = self._milliseconds(model.bundle.read(self.manifest.golden.image))
            if taken <= deadline_ms:
                return model
        warnings.warn(
            f"{self.artifact.name} takes {taken:.0f} ms a caption here, above the deadline of"
            f" {deadline_ms:g} ms, and the bundle has none with fewer visual tokens",
            EngineWarning,
            stacklevel=3,
        )
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        load = partial(
            Captioner,
            artifact=self.artifact.name,
            providers=self._model.providers.names,
            strict_providers=self._model.providers.strict,
            threads=self._model.threads,
            max_pixels=self.max_pixels,
        )
        return load, (self._model.bundle.source,)

    @overload  # a binary file is also an iterable of bytes; it counts as one image
    def __call__(  # type: ignore[overload-overlap]
        self,
        source: ImageSource,
        *,
        batch_size: int | None = ...,
        beams: int | None = ...,
        length: str | None = ...,
        length_penalty: float | None = ...,
        n_best: int = ...,
        avoid: Sequence[str] = ...,
        require: Sequence[str] = ...,
    ) -> Caption: ...

    @overload
    def __call__(
        self,
        source: Iterable[ImageSource],
        *,
        batch_size: int | None = ...,
        beams: int | None = ...,
        length: str | None = ...,
        length_penalty: float | None = ...,
        n_best: int = ...,
        avoid: Sequence[str] = ...,
        require: Sequence[str] = ...,
    ) -> list[Caption]: ...

    def __call__(
        self,
        source: ImageSource | Iterable[ImageSource],
        *,
        batch_size: int | None = None,
        beams: int | None = None,
        length: str | None = None,
        length_penalty: float | None = None,
        n_best: int = 1,
        avoid: Sequence[str] = (),
        require: Sequence[str] = (),
    ) -> Caption | list[Caption]:
        """A caption of one image, or a list of captions of many.

        Args:
            source: an image in any form that `load_image` takes, or an iterable of them.
            batch_size: how many images go through the model at once. Default: 8 of a list, whose
                images are all there; 1 of what may make its next image wait, such as a generator.
            beams: hypotheses kept in the search; 1 is fastest. Default: the bundle's.
            length: `short`, `long` or `any`, where the bundle knows them. Default: the bundle's.
            length_penalty: 0 and up; larger favours longer captions. Default: the bundle's.
            n_best: captions wanted an image; the best has the others as `alternatives`. There are
                at least as many beams.
            avoid: words and phrases that no caption says, whatever their case. Only as they are
                given: `dog` does not avoid `dogs`.
            require: words and phrases that each caption says. The sentence is built around them.

        Raises:
            ImageError: an image cannot be read (`attempt` goes on with the others).
            OptionError: an option is outside what it may be.
        """
        single = is_one_image(source)
        sources = [cast(ImageSource, source)] if single else cast("Iterable[ImageSource]", source)
        captions = []
        for outcome in self.attempt(
            sources,
            batch_size=batch_size,
            beams=beams,
            length=length,
            length_penalty=length_penalty,
            n_best=n_best,
            avoid=avoid,
            require=require,
        ):
            if isinstance(outcome, ImageError):
                raise outcome
            captions.append(outcome)
        return captions[0] if single else captions

    def attempt(
        self,
        sources: ImageSource | Iterable[ImageSource],
        *,
        batch_size: int | None = None,
        beams: int | None = None,
        length: str | None = None,
        length_penalty: float | None = None,
        n_best: int = 1,
        avoid: Sequence[str] = (),
        require: Sequence[str] = (),
    ) -> Iterator[Caption | ImageError]:
        """For each image, in order, its caption, or the error that says why it has none.

        Takes `batch_size` images at a time, so that captions come while later images wait; an
        error gives its place in the batch to the next image. One image counts as a list of it.
        """
        if is_one_image(sources):
            sources = [cast(ImageSource, sources)]
        sources = cast("Iterable[ImageSource]", sources)
        if batch_size is None:
            batch_size = BATCH if isinstance(sources, Sized) else 1
        batch_size = whole("batch_size", batch_size, 1, MAX_BATCH)
        n_best = whole("n_best", n_best, 1, self.artifact.beams[1])
        options = self._options(beams, length, length_penalty, n_best, avoid, require)
        pending: list[ImageError | None] = []  # None stands for an image in `batch`
        batch: list[Pixels] = []
        for source in sources:
            try:
                batch.append(load_image(source, self.manifest.image, max_pixels=self.max_pixels))
                pending.append(None)
            except ImageError as error:
                pending.append(error)
            if len(batch) == batch_size or len(pending) >= 4 * batch_size:
                yield from self._flush(pending, batch, options, n_best)
                pending, batch = [], []
        yield from self._flush(pending, batch, options, n_best)

    def stream(
        self,
        source: ImageSource,
        *,
        length: str | None = None,
        avoid: Sequence[str] = (),
        require: Sequence[str] = (),
    ) -> Iterator[str]:
        """The caption of one image in pieces, as they are found; joined, they are the sentence.

        Searches with one beam: with more, words already shown could still change.
        """
        options = self._options(beams=1, length=length, avoid=avoid, require=require)
        pixels = load_image(source, self.manifest.image, max_pixels=self.max_pixels)
        shown = text = ""
        for ids in self._model.searcher.stream(pixels[None], options):
            with vouched():
                text = self.vocabulary.text(ids)
            # the full stop comes last, and what ends a sentence is not followed by one
            said = self.manifest.presentation.open(text)
            if len(said) > len(shown):
                yield said[len(shown) :]
                shown = said
        rest = self.manifest.presentation.sentence(text)[len(shown) :]
        if rest:
            yield rest

    def _flush(
        self,
        pending: list[ImageError | None],
        batch: list[Pixels],
        options: Options,
        n_best: int,
    ) -> Iterator[Caption | ImageError]:
        few = max(1, MOST_ROWS // options.beams)
        parts = (np.stack(batch[i : i + few]) for i in range(0, len(batch), few))
        captions = (one for part in parts for one in self._caption(part, options, n_best))
        for error in pending:
            yield error or next(captions)

    def _caption(self, pixels: Pixels, options: Options, n_best: int = 1) -> list[Caption]:
        """Captions of pixels [batch, size, size, 3]."""
        with vouched():
            found = self._model.searcher.search(pixels, options)
        if options.constraints is not None:
            found = [_obeying(each, options.constraints) for each in found]
        with vouched():
            return [self._best(each, n_best) for each in found]

    def _best(self, found: Answer, n_best: int) -> Caption:
        """The caption of an image with its alternatives and tags."""
        tags = tuple(
            Tag(self.vocabulary.text([piece]), math.exp(log)) for piece, log in found.evidence
        )
        different: dict[str, Caption] = {}  # pieces may be cut differently and read the same
        wanted: list[Caption] = []
        for rank, caption in enumerate(map(self._worded, found.hypotheses)):
            if different.setdefault(caption.text, caption) is caption and rank < n_best:
                wanted.append(caption)
        calibrated = self.manifest.confidence
        if calibrated is not None:
            wanted = [
                replace(one, confidence=calibrated.of(_among(one, different.values(), tags)))
                for one in wanted
            ]
        return replace(wanted[0], alternatives=tuple(wanted[1:]), tags=tags)

    def _worded(self, found: Hypothesis) -> Caption:
        tokens = tuple(
            Token(i, self.vocabulary.pieces[i], math.exp(log))
            for i, log in zip(found.ids, found.log_probabilities, strict=False)
        )
        mean = sum(found.log_probabilities) / max(1, len(found.log_probabilities))
        text = self.manifest.presentation.sentence(self.vocabulary.text(found.ids))
        return Caption(text, math.exp(mean), tokens)

    def _milliseconds(self, image: bytes) -> float:
        """The median time of a caption of `image`, from pixels to text."""
        pixels = load_image(image, self.manifest.image)[None]
        options = self._options()
        self._caption(pixels, options)  # the first run allocates
        times = []
        for _ in range(TIMED):
            start = time.perf_counter()
            self._caption(pixels, options)
            times.append(time.perf_counter() - start)
        return 1000 * sorted(times)[TIMED // 2]

    def _options(
        self,
        beams: int | None = None,
        length: str | None = None,
        length_penalty: float | None = None,
        n_best: int = 1,
        avoid: Sequence[str] = (),
        require: Sequence[str] = (),
    ) -> Options:
        controls, defaults = self.manifest.controls, self.manifest.search
        least, most = self.artifact.beams
        if beams is None:
            beams = min(max(defaults.beams, n_best, least), most)
        beams = whole("beams", beams, least, most)
        if n_best > beams:
            raise OptionError(f"n_best must be at most the number of beams, {beams}, got {n_best}")
        length = defaults.length if length is None else text("length", length)
        if length not in controls.length:
            known = ", ".join(controls.length)
            raise OptionError(f"length must be one of {known} with this bundle, got {length!r}")
        if length_penalty is None:
            length_penalty = defaults.length_penalty
        return Options(
            beams=beams,
            length_penalty=number("length_penalty", length_penalty, 0, MAX_LENGTH_PENALTY),
            quality=controls.quality[defaults.quality],
            length=controls.length[length],
            constraints=self._constraints(avoid, require),
        )

    def _constraints(self, avoid: Sequence[str], require: Sequence[str]) -> Constraints | None:
        if not isinstance(avoid, str) and not isinstance(require, str) and not (avoid or require):
            return None
        longest = self.manifest.sizes.max_tokens - 1  # the last position fed is of the last piece
        return Constraints(self.vocabulary, self.manifest.tokens.end, longest, avoid, require)


def _obeying(found: Answer, constraints: Constraints) -> Answer:
    """The hypotheses that obey; where the model's own rules leave none, there is no caption."""
    obeying = tuple(each for each in found.hypotheses if constraints.hold(each.ids))
    if not obeying:
        raise OptionError("avoid, require: no caption of this photo obeys; ask for less")
    return replace(found, hypotheses=obeying)


def _among(caption: Caption, said: Iterable[Caption], tags: tuple[Tag, ...]) -> Caption:
    """A caption with all that the search found besides."""
    others = tuple(other for other in said if other is not caption)
    return replace(caption, alternatives=others, tags=tags)


def _opened(bundle: str | os.PathLike[str] | None) -> Bundle:
    return Bundle(default_bundle() if bundle is None else bundle)
