"""`nanocap parity BUNDLE`: what each of a bundle's artifacts lost, and what it gained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nanocap.cli.options import PATH, Threads, json_option, page_option
from nanocap.cli.output import Lines, say_table, tell

if TYPE_CHECKING:
    from nanocap.convert.parity_report import Report, Row

EXAMPLES = """\
\b
Examples:
  nanocap convert student.safetensors --out all --photos shards/ --precision int8 \\
      --precision int4 --precision fp16 --precision fp32
  nanocap parity all --data 'flickr8k-val-*.tar'
  nanocap parity all --data photos/captions.jsonl --record --report page

\b
The first fp32 artifact is the reference. Logits are compared along its own greedy captions, piece
by piece; a caption is the same if no piece differs. CIDEr is that of captions by the bundle's own
search. Times are medians of greedy captions, all artifacts in turns; compare them within one run.

\b
Exit codes: 0 done, 1 an artifact does not run here or a photo was left out, 2 wrong usage.
"""


@click.command(epilog=EXAMPLES, no_args_is_help=True)
@click.argument("bundle", type=PATH)
@click.option(
    "--data",
    required=True,
    help="Photos with captions, as eval takes them: shards (a glob, quoted), a table or a folder.",
)
@click.option(
    "--photos",
    "probes",
    type=click.IntRange(1),
    help="So many of them, spread evenly, are compared piece by piece.  [default: 200]",
)
@click.option("--threads", type=Threads(), default=1, show_default=True)
@click.option("--record", is_flag=True, help="Write the report into BUNDLE's manifest and card.")
@page_option("a page with a plot and the table")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    data: str,
    probes: int | None,
    threads: int,
    record: bool,
    page: Path | None,
    as_json: bool,
) -> None:
    """Compare every artifact of BUNDLE with its fp32: captions, CIDEr, bytes, time, memory."""
    import pycocoevalcap  # noqa: F401  # now rather than once everything is captioned

    from nanocap.bundle.quality import record_comparison
    from nanocap.convert.parity_report import PROBES, report
    from nanocap.distill.data.sources import read_source, source_of
    from nanocap.measure.report.cards import Photo

    if page is not None:
        from nanocap.measure.report.parity_page import write_parity_page
    unusable: dict[str, str] = {}
    photos = [
        Photo(example.key, example.image, example.captions)
        for example in read_source(source_of(data), Path(), unusable.__setitem__)
    ]
    shown = Lines()
    asked = probes or PROBES
    found = report(
        bundle, photos, probes=asked, threads=threads, tell=shown.line, count=shown.count
    )
    if record:
        about = {"against": found.reference, "photos_scored": found.photos}
        about["threads"] = found.threads
        record_comparison(bundle, {r.artifact.name: {**about, **r.to_dict()} for r in found.rows})
    say_table(json.dumps(found.to_dict()) if as_json else _table(found))
    left_out = {**unusable, **found.left_out}
    for name, reason in left_out.items():
        tell(f"{name}: left out: {reason}")
    if page is not None:
        write_parity_page(page, found.to_dict())
    ctx.exit(1 if left_out else 0)


def _table(found: Report) -> str:
    width = max(len(row.artifact.name) for row in found.rows)
    head = f"{'':{width}}     MB  logits    same   CIDEr  difference            ms  peak MB"
    lines = [head, *(_line(row, width) for row in found.rows), ""]
    for row in found.rows:
        lines += [f"{row.artifact.name}: {one}" for one in row.first_differences]
    lines.append(
        f"{found.photos} photos, {found.probes} of them piece by piece; against {found.reference};"
        f" {found.threads} thread{'s' * (found.threads > 1)}; {found.machine.cpu}"
    )
    return "\n".join(lines)


def _line(row: Row, width: int) -> str:
    parity, lost = row.parity, row.difference
    logits = "" if parity is None else f"{parity.max_logit_difference:.2g}"
    same = "" if parity is None else f"{parity.captions_equal:.1%}"
    interval = "" if lost is None else f"{lost.value:+.2f} [{lost.low:+.2f}, {lost.high:+.2f}]"
    peak = "?" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}"
    return (
        f"{row.artifact.name:{width}} {row.bytes / 1e6:6.2f} {logits:>7} {same:>7}"
        f" {row.cider.value:7.2f}  {interval:22} {row.milliseconds:6.1f} {peak:>6}"
    )
