"""`nanocap label`: let a teacher caption photos, for a student to learn from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from nanocap.cli.options import PATH, json_option, threads_option
from nanocap.cli.output import say, tell
from nanocap.errors import OptionError
from nanocap.progress import Progress

PART = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")


@click.command()
@click.option(
    "--teacher",
    "teachers",
    required=True,
    multiple=True,
    metavar="KIND:REST",
    help="student:CHECKPOINT, hf:ID_OR_PATH, file:CAPTIONS.jsonl, or ensemble:A,B,... of them;"
    " repeatable.",
)
@click.option(
    "--images",
    required=True,
    multiple=True,
    help="WebDataset shards (a glob, quoted), or folders of photos; repeatable.",
)
@click.option("--out", required=True, type=PATH, help="Folder of the labels.")
@click.option(
    "--captions",
    type=click.IntRange(1, 16),
    default=5,
    show_default=True,
    help="Most captions that each teacher proposes and that a row keeps.",
)
@click.option("--batch-size", type=click.IntRange(1, 1024), default=64, show_default=True)
@click.option(
    "--shard-size",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Photos per file; a killed run repeats at most one file.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["tar", "parquet"]),
    default="tar",
    show_default=True,
    help="WebDataset, or Parquet with the photos inside.",
)
@click.option(
    "--original",
    metavar="KEYS",
    default="captions",
    show_default=True,
    help="Keys of a photo's .json with the text it came with, to fuse; '' ignores it.",
)
@click.option("--scorer", type=PATH, help="scorer.safetensors, as evidence.")
@click.option("--detector", type=PATH, help="YOLOX as ONNX, as evidence for objects.")
@click.option("--detector-labels", type=PATH, help="What it detects, one a line.")
@click.option(
    "--adapt", type=PATH, help="student.safetensors: drop from captions what it cannot see."
)
@click.option("--part", metavar="I/N", default="1/1", help="Only share I of N of the files.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="This process, or actors of Ray on the cluster that RAY_ADDRESS names, else here.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Actors of Ray.  [default: one a GPU, or one]"
)
@click.option("--prompt", help="What to ask an hf: model.  [default: what its family expects]")
@click.option("--device", default="auto", help="Such as cuda:1 or cpu.  [default: CUDA if any]")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    help="[default: bf16 on CUDA, fp32 on a processor]",
)
@click.option(
    "--merge",
    type=float,
    default=1.0,
    show_default=True,
    help="Share of its visual tokens that an hf: LLaVA keeps; the others merge in its vision"
    " tower (ToMe, as in AuroraCap).",
)
@threads_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    teachers: tuple[str, ...],
    images: tuple[str, ...],
    out: Path,
    captions: int,
    batch_size: int,
    shard_size: int,
    format_: str,
    original: str,
    scorer: Path | None,
    detector: Path | None,
    detector_labels: Path | None,
    adapt: Path | None,
    part: str,
    engine: str,
    workers: int | None,
    prompt: str | None,
    device: str,
    dtype: str,
    merge: float,
    threads: int | None,
    as_json: bool,
) -> None:
    """Caption photos with teachers and write them as shards that a recipe can name.

    Each teacher proposes captions. They are ranked by what the others say, fused with the text
    that a photo came with (its more exact names stay, what nothing supports goes), checked fact
    by fact, and graded: a row is of high, medium or low quality, which a recipe's source takes
    over with quality = "row". Every decision is logged beside the rows, with its reasons.

    Kill it at any moment and run the same command again: it goes on after the last whole file.
    Several processes share a folder with --part 1/8, --part 2/8, ... and --device; several machines
    with --engine ray (pip install 'nanocap[ray]'), which makes the same files.

    hf: takes any image-to-text model of transformers, by its name on the Hugging Face hub or from
    the folder that save_pretrained wrote (pip install 'nanocap[teachers]'): BLIP, BLIP-2,
    InstructBLIP, GIT, ViT with GPT-2, Florence-2, PaliGemma, Idefics3 and SmolVLM, LLaVA and
    LLaVA-OneVision, Qwen-VL, and others that chat. file: has captions already, "image" (the key
    of a photo, or its path in the folder that --images names) and "caption" or "captions" a line.
    ensemble: averages students of one vocabulary; any others propose one by one, as if each were
    given with a --teacher of its own.

    \b
    Examples:
      nanocap label --teacher hf:Salesforce/blip-image-captioning-base \\
        --images holiday --out labels
      nanocap label --teacher hf:Qwen/Qwen2.5-VL-3B-Instruct --batch-size 8 \\
        --prompt 'Describe this photo in one sentence.' --images 'photos/*.tar' --out labels
      nanocap label --teacher ensemble:hf:microsoft/git-base-coco,file:theirs.jsonl \\
        --images 'photos/*.tar' --out labels
      nanocap label --teacher ensemble:runs/a/student.safetensors,runs/b/student.safetensors \\
        --images 'photos/unlabelled-*.tar' --out labels
    """
    from nanocap.distill.labelling import Options, label
    from nanocap.distill.labelling.panel import Order
    from nanocap.distill.teachers.settings import Settings
    from nanocap.student.devices import keep_freed_memory

    share = PART.fullmatch(part)
    if share is None:
        raise OptionError(f"--part {part}: must be I/N, such as 2/8")
    if workers is not None and engine != "ray":
        raise OptionError("--workers are Ray's: add --engine ray, or start --part 1/N, 2/N, ...")
    mine = (int(share[1]), int(share[2]))
    order = Order(
        teachers=teachers,
        images=images,
        out=out,
        options=Options(captions, batch_size, shard_size, format_, original, mine),
        settings=Settings(prompt, device, dtype, merge),
        scorer=scorer,
        detector=detector,
        detector_labels=detector_labels,
        adapt=adapt,
        threads=threads,
    )
    keep_freed_memory()
    task = order.task()
    progress = Progress(len(task.photos), "labelling", plain=True)
    if engine == "ray":
        from nanocap.distill.labelling.ray import label_on_ray

        labelled = label_on_ray(order, task, workers, progress.step, progress.skip)
    else:
        labelled = label(task, order.panel(task.photos), progress.step, progress.skip)
    progress.clear()
    for key, reason in labelled.left_out.items():
        tell(f"{key}: left out: {reason}")
    rows = labelled.manifest["rows"]
    if as_json:
        names = ("rows", "left_out", "levels", "origins", "photos_per_second", "teacher_share")
        found = {name: labelled.manifest[name] for name in names}
        click.echo(json.dumps({"out": str(out), "photos": rows, **found}))
    else:
        levels = ", ".join(f"{n} {level}" for level, n in labelled.manifest["levels"].items())
        say(f"{out}: {rows} photos labelled ({levels})")
    ctx.exit(1 if labelled.left_out else 0)
