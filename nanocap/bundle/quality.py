"""What was measured of an artifact, written into its bundle's manifest and model card.

Figures belong to bytes: each record holds the digest of the files that were measured, and a bundle
whose files are others does not pass `nanocap verify`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nanocap.bundle.bundle import Bundle
from nanocap.bundle.card import CARD, COMPARISON, QUALITY, model_card
from nanocap.bundle.manifest import Artifact, Manifest
from nanocap.bundle.writer import write_bundle
from nanocap.errors import BundleError, OptionError

DIGEST = "sha256"


def digest(manifest: Manifest, artifact: Artifact) -> str:
    """SHA-256 over what the artifact says with: the hashes of its files, and the pieces."""
    paths = sorted(set(artifact.files.values()))
    lines = [f"{manifest.files[path].sha256} {path}\n" for path in paths]
    lines += [f"{piece}\n" for piece in manifest.vocabulary.pieces]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def record(folder: Path, artifact_name: str, name: str, figures: Mapping[str, Any]) -> None:
    """Write the figures of one set of photos, `name`, into the bundle's folder and its card.

    Args:
        figures: JSON-ready; see `Evaluation.to_dict`.
    Raises:
        OptionError: the bundle is no folder, or has no such artifact.
        BundleError: it is damaged.
    """
    _rewrite(folder, {artifact_name: figures}, name)


def record_comparison(folder: Path, figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the parity report, by names of artifacts, as `record` writes figures."""
    _rewrite(folder, figures, None)


def _rewrite(folder: Path, figures: Mapping[str, Mapping[str, Any]], photos: str | None) -> None:
    """Put figures, with the digest of their files, among what was measured of each artifact.

    They are of the set `photos`, or the parity report's.
    """

    def changed(manifest: Manifest) -> Manifest:
        for name in figures:
            if name not in {artifact.name for artifact in manifest.artifacts}:
                raise OptionError(f"{folder}: has no artifact {name}")
        artifacts = (measured(manifest, artifact) for artifact in manifest.artifacts)
        return replace(manifest, artifacts=tuple(artifacts))

    def measured(manifest: Manifest, artifact: Artifact) -> Artifact:
        if artifact.name not in figures:
            return artifact
        values = {**figures[artifact.name], DIGEST: digest(manifest, artifact)}
        if photos is None:
            change = {COMPARISON: values}
        else:
            change = {QUALITY: {**artifact.measured.get(QUALITY, {}), photos: values}}
        return replace(artifact, measured={**artifact.measured, **change})

    rewrite(folder, changed)


def rewrite(folder: Path, change: Callable[[Manifest], Manifest]) -> None:
    """Change what a bundle's manifest says, and its card; the other files stay as they are.

    Raises:
        OptionError: the bundle is no folder.
        BundleError: it is damaged.
    """
    if not folder.is_dir():
        raise OptionError(f"{folder}: figures are recorded in a bundle's folder, not in a .zip")
    bundle = Bundle(folder)
    manifest = change(bundle.manifest)
    files = {path: bundle.read(path) for path in manifest.files if path != CARD}
    files[CARD] = model_card(manifest, sum(map(len, files.values()))).encode()
    write_bundle(folder, manifest, files, overwrite=True)


def check(bundle: Bundle) -> None:
    """Raise BundleError where the manifest holds figures of other files."""
    manifest = bundle.manifest
    for artifact, name, values in records(manifest):
        if values.get(DIGEST) != digest(manifest, artifact):
            raise BundleError(
                f"{bundle.where}: the figures on {name!r} are of other files than those of"
                f" {artifact.name}; measure again (nanocap eval --record)"
            )
    for artifact in manifest.artifacts:
        found = artifact.measured.get(COMPARISON, {DIGEST: digest(manifest, artifact)})
        if not isinstance(found, Mapping) or found.get(DIGEST) != digest(manifest, artifact):
            raise BundleError(
                f"{bundle.where}: the parity report is of other files than those of"
                f" {artifact.name}; measure again (nanocap parity --record)"
            )


def records(manifest: Manifest) -> Iterator[tuple[Artifact, str, Mapping[str, Any]]]:
    """Artifact, name of the set, and the record, of every record in the manifest."""
    for artifact in manifest.artifacts:
        found = artifact.measured.get(QUALITY, {})
        for name, values in found.items() if isinstance(found, Mapping) else ():
            yield artifact, name, values if isinstance(values, Mapping) else {}
