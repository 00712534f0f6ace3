"""`nanocap convert`: a checkpoint to a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import click
from click.core import ParameterSource

from nanocap.bundle.precisions import BACKENDS, LIBRARIES, PRECISIONS, every_precision
from nanocap.cli.options import PATH, json_option, threads_option
from nanocap.cli.output import Lines, say, timed_lines
from nanocap.errors import OptionError

EXAMPLES = """\
\b
Examples:
  nanocap convert runs/nano-s/student.safetensors --out nano-s --photos shards/
  nanocap convert student.safetensors --out both --precision int8 --precision fp32 \\
      --photos holiday/ --photos coco-000.tar --golden my-own-photo.jpg
  nanocap convert student.safetensors --out exact --precision fp32       # needs no photos
  nanocap convert student.safetensors --out all --photos shards/ --precision int8 \\
      --precision int4 --precision fp16 --tokens 98 --tokens 49
  nanocap convert student.safetensors --out apple --to=coreml --to=onnx --photos shards/ \\
      --precision coreml:pal8 --precision coreml:fp16 --precision onnx:int8
  nanocap convert student.safetensors --out phone --to executorch --photos shards/
  nanocap convert student.safetensors --out everything --all --photos shards/
  nanocap verify nano-s && nanocap caption --bundle nano-s photo.jpg
  nanocap convert student.safetensors --out hub --to transformers

\b
int8          everything with weights in integers; scaled on photos
int8-dynamic  its linear layers in integers, scaled on the spot: no photos, a slower encoder
int4          int8, and 4-bit weights in the decoder: smallest
fp16          for graphics and neural processors; on a CPU it is no faster than fp32
fp32          unquantized
pal8, pal4    of coreml: weights are indices into palettes of 256 or, mostly, 16 values

\b
int8, int4 and palettes are fitted to photos: a hundred or two that resemble what they will see.
For onnx, a quarter of them choose how int8 is scaled and whether a part of the graph stays float.
They are read, not kept. Fewer --tokens are faster and see less; a number that the student was not
trained with costs most, so measure it with nanocap eval.

\b
The golden photo IS kept, as a PNG of the model's input size: give one that you may pass on. Without
it a drawn picture takes its place.

\b
`nanocap eval BUNDLE --data ... --record NAME` puts quality on the model card.

\b
--to transformers writes no bundle but a folder for transformers and Optimum (import nanocap.interop
first) and for transformers.js, in fp32, as push_to_hub takes it.

\b
Each graph is loaded, run and compared with the checkpoint before the bundle appears (those of Core
ML are run on macOS only; elsewhere they are read back, and their weights compared); a run that is
killed or fails leaves nothing at --out.
"""


@click.command(epilog=EXAMPLES, no_args_is_help=True)
@click.argument("checkpoint", type=PATH)
@click.option("--out", required=True, type=PATH, help="Folder to write.")
@click.option(
    "--to",
    "backends",
    multiple=True,
    type=click.Choice((*BACKENDS, *LIBRARIES)),
    default=("onnx",),
    show_default=True,
    help="Backend; may be repeated. Or another library's folder, alone.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="[BACKEND:]PRECISION",
    help="An artifact each; the first one runs by default.  "
    + "; ".join(f"{name}: {', '.join(some)}" for name, some in PRECISIONS.items())
    + "  [default: the first of the backend's]",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Every precision of the backends that --to names, or of all backends.",
)
@click.option(
    "--tokens",
    multiple=True,
    type=click.IntRange(1),
    metavar="N",
    help="Visual tokens; an encoder each over a shared decoder; repeatable.  [default: as trained]",
)
@click.option(
    "--photos",
    multiple=True,
    type=PATH,
    metavar="PATH",
    help="Photos, folders or tar shards to calibrate and compare on; may be repeated.",
)
@click.option(
    "--calibration",
    type=click.IntRange(1, 10_000),
    default=128,
    show_default=True,
    help="Most photos used for calibration, spread evenly.",
)
@click.option("--golden", type=PATH, help="Photo of the bundle's check.  [default: a drawing]")
@click.option("--name", help="Name of the model.  [default: the recipe's]")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the model.")
@click.option(
    "--beams", type=click.IntRange(1, 64), default=3, show_default=True, help="Default of captions."
)
@click.option(
    "--length-penalty",
    type=click.FloatRange(0, 10),
    default=1.0,
    show_default=True,
    help="Default length penalty; larger favours longer captions.",
)
@click.option(
    "--qdq",
    is_flag=True,
    help="Leave int8 graphs in QuantizeLinear and DequantizeLinear pairs, as execution providers"
    " other than the CPU's take it. It starts slower.",
)
@click.option("--overwrite", "--force", is_flag=True, help="Replace a bundle that is there.")
@threads_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    checkpoint: Path,
    out: Path,
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    everything: bool,
    tokens: tuple[int, ...],
    photos: tuple[Path, ...],
    calibration: int,
    golden: Path | None,
    name: str | None,
    version: str,
    beams: int,
    length_penalty: float,
    qdq: bool,
    overwrite: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Turn CHECKPOINT, the student.safetensors of a run, into a bundle that captions."""
    if set(backends) & set(LIBRARIES):
        _refuse_unheeded(context, backends)
        from nanocap.convert.graphs.sessions import use_threads
        from nanocap.convert.huggingface.folder import build_folder

        use_threads(threads)
        lines = timed_lines()
        out = build_folder(checkpoint, out, photos=photos, overwrite=overwrite, report=lines)
        size = _bytes(out)
        if as_json:
            click.echo(json.dumps({"folder": str(out), "bytes": size}))
        else:
            say(f"{out}: {size / 1e6:.2f} MB, for transformers, Optimum, transformers.js")
        return
    if everything:
        if precisions:
            raise OptionError("--all makes every precision: leave --precision out")
        if context.get_parameter_source("backends") is not ParameterSource.COMMANDLINE:
            backends = BACKENDS
        precisions = every_precision(backends)
    from nanocap.bundle import Bundle
    from nanocap.bundle.manifest import SearchDefaults
    from nanocap.convert.build import build_bundle
    from nanocap.convert.graphs.sessions import use_threads

    use_threads(threads)
    progress = Lines()
    bundle = build_bundle(
        checkpoint,
        out,
        precisions=precisions,
        backends=backends,
        tokens=tokens,
        photos=photos,
        golden=golden,
        name=name,
        version=version,
        search=SearchDefaults(beams=beams, length_penalty=length_penalty),
        calibration_photos=calibration,
        qdq=qdq,
        overwrite=overwrite,
        report=progress.line,
        count=progress.count,
    )
    manifest = Bundle(bundle).manifest
    size = _bytes(bundle)
    if as_json:
        result = {
            "bundle": str(bundle),
            "bytes": size,
            "artifacts": {a.name: dict(a.measured) for a in manifest.artifacts},
            "golden": manifest.golden.caption,
        }
        click.echo(json.dumps(result))
    else:
        say(f"{bundle}: {size / 1e6:.2f} MB, golden caption: {manifest.golden.caption}")


def _refuse_unheeded(context: click.Context, backends: tuple[str, ...]) -> None:
    """Options of bundles have no place in another library's folder."""
    (library, *others) = sorted(backends, key=lambda name: name not in LIBRARIES)
    if others:
        raise OptionError(f"--to {library} writes a folder of its own: convert to it alone")
    heeded = {"checkpoint", "out", "backends", "photos", "overwrite", "threads", "as_json"}
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name not in heeded and source is ParameterSource.COMMANDLINE:
            raise OptionError(f"--to {library} takes no {option.opts[0]}: leave it out")


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
