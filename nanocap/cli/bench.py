"""`nanocap bench [BUNDLE]`: how fast, how large, and how near to the machine's limits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from nanocap.bundle import Bundle, default_bundle
from nanocap.cli.options import PATH, Threads, json_option, page_option
from nanocap.cli.output import say_table, tell, timed_lines
from nanocap.cores import available_cores
from nanocap.measure.bench import report as reports
from nanocap.measure.bench.options import FULL, QUICK, Options
from nanocap.measure.bench.run import bench

EXAMPLES = """\
\b
Examples:
  nanocap bench                                the model inside the package
  nanocap bench my-bundle --artifact onnx-fp32 --artifact onnx-int8
  nanocap bench --threads 1 --threads 4 --repeat 40 --photo photo.jpg
  nanocap bench --quick --json > bench.json
  nanocap bench --report page                  and a page with plots

\b
Everything runs in turns within one process, so that other work on the machine disturbs all alike:
compare figures of one run with each other. Times are medians of wall-clock milliseconds.

\b
Roofline: a stage takes at least as long as its multiply-adds at the rate of a large matrix product
(fp32, or int8 where both factors are), and as its bytes at the rate of a large copy, both measured
in the same run. Share is that limit over the stage's time. A model that stays in the processor's
cache can pass 100 %; "in cache" is its share of the limit with the rate of a copy of 4 MB. Where
either is below 35 %, ONNX Runtime's profiler tells where the time goes.

\b
--json prints one line with the keys bundle, name, version, bytes, machine, rounds, photos, peaks,
artifacts (each with runs: threads, load_ms, stages, captions, captions_per_s, peak_bytes) and
failed.

\b
Exit codes: 0 done, 1 an artifact does not run here or the bundle is refused, 2 wrong usage.
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle", metavar="[BUNDLE]", required=False, type=PATH)
@click.option(
    "--threads",
    multiple=True,
    type=Threads(),
    help="Threads of both graphs; may be repeated.  [default: 1, and all cores]",
)
@click.option("--repeat", type=click.IntRange(1), help="Rounds.  [default: 20; 3 with --quick]")
@click.option("--artifact", "artifacts", multiple=True, help="May be repeated.  [default: each]")
@click.option("--photo", type=PATH, help="Measure with this one.  [default: drawn ones]")
@click.option("--quick", is_flag=True, help="Few rounds and small photos: a glance, no figures.")
@page_option("a page of plots and tables")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path | None,
    threads: tuple[int, ...],
    repeat: int | None,
    artifacts: tuple[str, ...],
    photo: Path | None,
    quick: bool,
    page: Path | None,
    as_json: bool,
) -> None:
    """Measure BUNDLE (default: the model inside the package) on this machine."""
    if page is not None:
        from nanocap.measure.report.bench_page import write_bench_page
    scale = QUICK if quick else FULL
    options = Options(
        bundle=bundle or default_bundle(),
        threads=tuple(dict.fromkeys(threads or (1, available_cores()))),
        scale=replace(scale, rounds=repeat or scale.rounds),
        artifacts=tuple(dict.fromkeys(artifacts)),
        photo=photo,
    )
    report = bench(options, timed_lines())
    say_table(json.dumps(reports.as_json(report)) if as_json else reports.as_text(report))
    for name, reason in report.failures.items():
        tell(f"{name}: left out: {reason}")
    if page is not None:
        write_bench_page(page, report, Bundle(options.bundle).manifest)
    ctx.exit(1 if report.failures else 0)
