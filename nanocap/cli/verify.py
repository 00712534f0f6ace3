"""`nanocap verify [BUNDLE]`: is a bundle intact, and does it give the expected caption?"""

from __future__ import annotations

import io
import json

import click

from nanocap.bundle import Bundle, default_bundle
from nanocap.bundle.quality import check
from nanocap.cli.options import json_option
from nanocap.cli.output import say
from nanocap.errors import BundleError, NanocapError
from nanocap.runtime.captioner import Captioner


@click.command()
@click.argument("bundle", metavar="[BUNDLE]", required=False)
@json_option
@click.pass_context
def command(ctx: click.Context, bundle: str | None, as_json: bool) -> None:
    """Check a bundle: its schema, the size and SHA-256 of every file, and one golden caption.

    Figures of quality in it must be of these very files.

    \b
    Examples:
      nanocap verify                the model inside the package
      nanocap verify my-bundle/     a folder
      nanocap verify my-bundle.zip  the same in one file

    \b
    Exit codes: 0 the bundle is whole, 1 it is not, 2 wrong usage.
    """
    source = bundle or str(default_bundle())
    try:
        opened = Bundle(source)
        manifest = opened.manifest
        contents = {path: opened.read(path) for path in manifest.files}
        total = sum(map(len, contents.values()))
        check(opened)
        caption = golden(opened, contents)
    except NanocapError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"bundle": source, "ok": False, "error": str(error)}))
        ctx.exit(error.exit_code)
    unlisted = opened.unlisted()
    if as_json:
        values = {
            "bundle": source,
            "ok": True,
            "name": manifest.name,
            "version": manifest.version,
            "schema": manifest.schema,
            "files": len(contents),
            "bytes": total,
            "artifacts": [artifact.name for artifact in manifest.artifacts],
            "golden": caption,
            "unlisted": unlisted,
        }
        click.echo(json.dumps(values))
        return
    artifacts = ", ".join(artifact.name for artifact in manifest.artifacts)
    lines = [
        f"bundle  {source}",
        f"model   {manifest.name} {manifest.version} ({artifacts})",
        f"schema  {manifest.schema}: valid",
        f"files   {len(contents)}, {total / 1e6:.2f} MB: sizes and SHA-256 match",
        f"golden  {manifest.golden.artifact} captions {manifest.golden.image} as: {caption}",
        *(f"note    {path} is not in the manifest and is never read" for path in unlisted),
    ]
    for line in lines:
        say(line)


def golden(bundle: Bundle, contents: dict[str, bytes]) -> str:
    """The caption of the golden image; raises BundleError where the manifest has another."""
    expected = bundle.manifest.golden
    captioner = Captioner(bundle, artifact=expected.artifact)
    found = captioner(io.BytesIO(contents[expected.image])).text
    if found != expected.caption:
        raise BundleError(
            f"{bundle.where}: {expected.artifact} captions {expected.image} as {found!r}, but the"
            f" manifest has {expected.caption!r}; get the bundle again, or report this machine"
        )
    return found
