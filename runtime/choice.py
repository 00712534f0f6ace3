"""Which artifact of a bundle runs: by engine, by name, by visual tokens."""

from __future__ import annotations

from nanocap.bundle.manifest import Artifact, Manifest
from nanocap.errors import OptionError


def choose(
    manifest: Manifest,
    engine: str | None = None,
    artifact: str | None = None,
    tokens: int | None = None,
) -> Artifact:
    """The first artifact that is of this backend, this name and so many visual tokens.

    Raises:
        OptionError: there is none; the message names those that there are.
    """
    for one in manifest.artifacts:
        if (
            engine in (None, one.backend)
            and artifact in (None, one.name)
            and tokens in (None, one.visual_tokens)
        ):
            return one
    wanted = (
        engine and f"engine {engine}",
        artifact and f"{artifact}",
        tokens and f"{tokens} visual tokens",
    )
    known = ", ".join(
        f"{a.name} (engine {a.backend}, {a.visual_tokens} visual tokens)"
        for a in manifest.artifacts
    )
    raise OptionError(
        f"{manifest.name}: has no artifact for {' '.join(x for x in wanted if x)}; it has {known}"
    )


def budgets(manifest: Manifest, artifact: Artifact) -> list[Artifact]:
    """Those that differ from `artifact` in visual tokens alone, it too, the most tokens first."""
    alike = (
        one
        for one in manifest.artifacts
        if (one.backend, one.precision) == (artifact.backend, artifact.precision)
    )
    return sorted(alike, key=lambda one: -one.visual_tokens)
