"""An artifact of a bundle, open in this process."""

from __future__ import annotations

import os
import warnings
from functools import partial

from nanocap.bounds import whole
from nanocap.bundle import Bundle
from nanocap.bundle.manifest import Artifact
from nanocap.cores import available_cores
from nanocap.errors import EngineWarning
from nanocap.runtime.ahead import Ahead
from nanocap.runtime.engines import import_ahead, load_engine
from nanocap.runtime.engines.providers import Providers
from nanocap.runtime.search import Searcher


class Loaded:
    """The graphs of an artifact.

    Args:
        files: what `bundle.load(artifact)` gives, where it is being read already.

    Raises:
        BundleError: a file is missing or altered.
        EngineError, MissingExtraError: the engine cannot run it.
    """

    def __init__(
        self,
        bundle: Bundle,
        artifact: Artifact,
        threads: int | None,
        providers: Providers,
        files: Ahead[dict[str, bytes]] | None = None,
    ) -> None:
        self.bundle, self.artifact = bundle, artifact
        self.threads, self.providers = threads, providers
        self._open(files)

    def _open(self, files: Ahead[dict[str, bytes]] | None = None) -> None:
        read = files or Ahead(partial(self.bundle.load, self.artifact))
        import_ahead(self.artifact.backend)
        held = read.result()
        self._engine = load_engine(self.artifact, held, self.threads, self.providers)
        self._process = os.getpid()

    @property
    def searcher(self) -> Searcher:
        """Searches with the graphs. In a forked process they are opened anew: it lacks their
        threads."""
        if self._process != os.getpid():
            self._open()
        manifest = self.bundle.manifest
        end, pad, longest = manifest.tokens.end, manifest.tokens.pad, manifest.sizes.max_tokens
        return Searcher(self._engine, self.artifact.state, end, pad, longest)


def one_a_core(threads: int) -> int:
    """So many threads, at most one a core; an EngineWarning says where that is fewer.

    More wait for each other: hundreds of them take a minute for a caption.
    """
    asked, cores = whole("threads", threads, 1), available_cores()
    if asked > cores:
        warnings.warn(
            f"threads {asked}: taking {cores}, one a core of this machine",
            EngineWarning,
            stacklevel=3,
        )
    return min(asked, cores)
