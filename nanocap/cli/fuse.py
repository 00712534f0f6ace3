"""`nanocap fuse`: a bundle as one graph that captions in one call."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nanocap.bounds import MAX_BEAMS
from nanocap.cli.options import PATH, json_option
from nanocap.cli.output import say
from nanocap.errors import OptionError
from nanocap.files.whole_file import whole_file


@click.command()
@click.argument("bundle", required=False, type=PATH)
@click.option("--out", required=True, type=PATH, help="File to write.")
@click.option("--artifact", help="Artifact of the bundle.  [default: its first]")
@click.option(
    "--beams", type=click.IntRange(1, MAX_BEAMS), help="Of its search.  [default: the bundle's]"
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@json_option
def command(
    bundle: Path | None,
    out: Path,
    artifact: str | None,
    beams: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write BUNDLE (default: the model inside the package) as one ONNX graph: pixels to ids.

    Resize, normalization and the search are inside, so that a program needs ONNX Runtime and
    nothing else of nanocap. It captions a photo of the model's own size as `nanocap caption` does;
    larger ones are resized a little differently, which may change a word.

    \b
    Examples:
      nanocap fuse --out caption.onnx                     the model inside the package
      nanocap fuse my-bundle --artifact onnx-fp32 --out caption.onnx

    \b
    From any language with ONNX Runtime:
      input   image   uint8 [height, width, 3], RGB, any size, upright
      output  ids     int64 [pieces]; text is the join of metadata["pieces"][id]
    """
    from nanocap.bundle import Bundle, default_bundle
    from nanocap.convert.graphs.whole_caption import whole_caption

    if out.exists() and not overwrite:
        raise OptionError(f"{out}: already exists; choose another name or --overwrite")
    opened = Bundle(bundle if bundle is not None else default_bundle())
    known = {one.name: one for one in opened.manifest.artifacts}
    name = artifact if artifact is not None else opened.manifest.artifacts[0].name
    if name not in known:
        raise OptionError(f"no artifact {name!r}; the bundle has {', '.join(known)}")
    graph = whole_caption(opened, known[name], beams).SerializeToString()
    with whole_file(out) as partial:
        partial.write_bytes(graph)
    if as_json:
        click.echo(json.dumps({"file": str(out), "bytes": len(graph), "artifact": name}))
    else:
        say(f"{out}: {len(graph) / 1e6:.2f} MB, from {name}")
