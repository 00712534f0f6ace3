"""`nanocap label`: let a teacher caption photos, for a student to learn from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command()
@click.option(
    "--teacher",
    required=True,
    metavar="KIND:REST",
    help="student:CHECKPOINT, hf:ID_OR_PATH, file:CAPTIONS.jsonl, or ensemble:A,B,... of them.",
)
@click.option(
    "--images", required=True, multiple=True, help="WebDataset shards (a glob, quoted); repeatable."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the labels.")
@click.option("--captions", type=click.IntRange(1, 16), default=5, show_default=True)
@click.option("--batch-size", type=click.IntRange(1, 1024), default=64, show_default=True)
@click.option("--prompt", help="What to ask an hf: model.  [default: what its family expects]")
@click.option("--device", default="auto", help="Such as cuda:1 or cpu.  [default: CUDA if any]")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    help="[default: bf16 on CUDA, fp32 on a processor]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON line.")
@click.pass_context
def command(
    ctx: click.Context,
    teacher: str,
    images: tuple[str, ...],
    out: Path,
    captions: int,
    batch_size: int,
    prompt: str | None,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Caption photos with a teacher and write them as WebDataset shards that a recipe can name.

    Captions that the photos come with are not looked at. Kill it at any moment and run the same
    command again: it goes on after the last whole shard.

    hf: takes any image-to-text model of transformers, by its name on the Hugging Face hub or from
    the folder that save_pretrained wrote (pip install 'nanocap[teachers]'): BLIP, BLIP-2,
    InstructBLIP, GIT, ViT with GPT-2, Florence-2, PaliGemma, Idefics3 and SmolVLM, LLaVA and
    LLaVA-OneVision, Qwen-VL, and others that chat. file: has captions already, "image" (the key
    of a photo) and "caption" or "captions" a line. ensemble: averages students of one vocabulary;
    of any others it pools the captions and takes those that agree most with the rest.

    \b
    Examples:
      nanocap label --teacher hf:Salesforce/blip-image-captioning-base \\
        --images 'photos/unlabelled-*.tar' --out labels
      nanocap label --teacher hf:Qwen/Qwen2.5-VL-3B-Instruct --batch-size 8 \\
        --prompt 'Describe this photo in one sentence.' --images 'photos/*.tar' --out labels
      nanocap label --teacher ensemble:hf:microsoft/git-base-coco,file:theirs.jsonl \\
        --images 'photos/*.tar' --out labels
      nanocap label --teacher ensemble:runs/a/student.safetensors,runs/b/student.safetensors \\
        --images 'photos/unlabelled-*.tar' --out labels
    """
    from nanocap.distill.labels import label
    from nanocap.distill.sources import read_photos
    from nanocap.distill.teachers import load_teacher
    from nanocap.distill.teachers.settings import Settings

    loaded = load_teacher(teacher, Settings(prompt, device, dtype))
    photos = [photo for pattern in images for photo in read_photos(pattern)]
    with click.progressbar(length=len(photos), label="labelling", file=sys.stderr) as bar:
        left_out = label(loaded, photos, out, captions, batch_size, step=bar.update)
    for key in left_out:
        reason = "not a photo that can be read, or the teacher has no caption of it"
        click.echo(f"nanocap: {key}: left out: {reason}", err=True)
    done = len(photos) - len(left_out)
    if as_json:
        click.echo(json.dumps({"out": str(out), "photos": done, "left_out": len(left_out)}))
    else:
        click.echo(f"{out}: {done} photos labelled")
    ctx.exit(1 if left_out else 0)
