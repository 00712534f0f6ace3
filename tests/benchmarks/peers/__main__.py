"""nanocap beside the models that a user would pick instead: time, peak memory, bytes on disk.

All caption the same photo with the same number of tokens and of threads: decode, resize, encode,
and write greedily, with a cache. The peers are built from their published configurations with
random weights, which take as long as trained ones; no network is used. Each contender lives in a
process of its own, and they caption in turns, so that a busy machine slows all of them. A peak is
the resident set's, with the libraries and the mapped model file. Exits with 1 where a required
ratio is missed, or where a contender that it needs could not run.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from contenders import CONTENDERS, NANOCAP
from process import PREPARE, SERVE, Child, ContenderError
from process import main as child_main

PHOTO = Path(__file__).parents[3] / "samples" / "photos" / "cat.jpg"
PACKAGES = ("nanocap", "numpy", "onnxruntime", "optimum", "optimum-onnx", "torch", "transformers")
MB = 1_000_000
SETUP = """
set up (an environment of its own: Optimum wants an older transformers than constraints.txt has;
torch first, so that nothing else chooses its version):

  python3.11 -m venv .venv-peers
  .venv-peers/bin/pip install torch==2.13.0
  .venv-peers/bin/pip install -r tests/benchmarks/peers-requirements.txt
  .venv-peers/bin/pip install --no-deps .
  .venv-peers/bin/python tests/benchmarks/peers --work peers-work

All of them together need about 10 GB of memory and, in the work folder, 8 GB of disk; export and
quantization take some minutes the first time. The page that each configuration comes from is
`source` in the JSON.
"""


@dataclass
class Result:
    """What was measured of one contender."""

    name: str
    title: str
    runtime: str
    source: str
    tokens: int
    bytes: int
    peak_bytes: int = 0
    times_ms: list[float] = field(default_factory=list)

    @property
    def ms(self) -> float:
        """Median milliseconds of a caption."""
        return statistics.median(self.times_ms)


@dataclass(frozen=True)
class Limit:
    """A peer's figure has to be at least so many times nanocap's."""

    name: str
    figure: str  # an attribute of Result
    least: float
    words: str


LIMITS = (
    Limit("vit-distilgpt2-torch", "ms", 40, "faster"),
    Limit("vit-distilgpt2-int8", "ms", 8, "faster"),
    Limit("vit-distilgpt2-int8", "bytes", 12, "smaller"),
)


def say(line: str) -> None:
    """A line of progress."""
    print(f"peers: {line}", file=sys.stderr, flush=True)


class Benchmark:
    """The contenders that are alive, and why the others are not."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.results: dict[str, Result] = {}
        self.absent: dict[str, str] = {}
        self._children: dict[str, Child] = {}
        self._tokens: int = options.tokens or 0  # 0 until nanocap's caption tells

    def start(self, name: str) -> None:
        """Prepare a contender where no earlier run did, and start it."""
        contender, began = CONTENDERS[name], time.monotonic()
        child = None
        try:
            if not contender.prepared(self.work):
                say(f"{name}: preparing ({contender.runtime}); this can take minutes")
                child = Child(PREPARE, name, self.work)
                child.answer()
                child.close()
            say(f"{name}: loading, {time.monotonic() - began:.0f} s so far")
            options = self.options
            child = Child(SERVE, name, self.work, options.photo, options.threads, self._tokens)
            ready = child.answer()
        except ContenderError as error:
            self._drop(name, child, error)
            return
        self._tokens = ready["tokens"]
        self._children[name] = child
        self.results[name] = Result(
            name, contender.title, contender.runtime, contender.source, **ready
        )

    def rounds(self) -> None:
        """Every living contender once a round, in turns."""
        for number in range(1, self.options.rounds + 1):
            say(f"round {number} of {self.options.rounds}")
            for name, child in list(self._children.items()):
                try:
                    self.results[name].times_ms += child.turn()
                except ContenderError as error:
                    del self._children[name], self.results[name]
                    self._drop(name, child, error)

    def stop(self) -> None:
        """End the children and take their peaks."""
        for name, child in self._children.items():
            self.results[name].peak_bytes = child.close()
        self._children.clear()

    def _drop(self, name: str, child: Child | None, error: ContenderError) -> None:
        if child is not None:
            child.close()
        self.absent[name] = str(error)
        say(f"{name}: left out: {error}")


def table(benchmark: Benchmark) -> str:
    """The figures, and behind each how many times nanocap's it is."""
    ours = benchmark.results[NANOCAP]
    head = f"{'':24} {'':17} {'ms a caption':>12} {'':>7} {'peak MB':>8} {'':>7} {'MB on disk':>10}"
    lines = [head]
    for one in benchmark.results.values():
        lines.append(
            f"{one.title:24} {one.runtime:17}"
            f" {one.ms:12.1f} {one.ms / ours.ms:6.1f}x"
            f" {one.peak_bytes / MB:8.0f} {one.peak_bytes / ours.peak_bytes:6.1f}x"
            f" {one.bytes / MB:10.1f} {one.bytes / ours.bytes:6.1f}x"
        )
    lines += [
        f"{CONTENDERS[name].title:24} {CONTENDERS[name].runtime:17} not measured: {reason}"
        for name, reason in benchmark.absent.items()
    ]
    return "\n".join(lines)


def judge(benchmark: Benchmark) -> list[dict[str, object]]:
    """Each limit on a contender that was chosen: the ratio found, and whether it is enough."""
    verdicts: list[dict[str, object]] = []
    for limit in LIMITS:
        if limit.name in benchmark.absent:
            ratio = None
        elif limit.name in benchmark.results:
            figures = (getattr(benchmark.results[n], limit.figure) for n in (limit.name, NANOCAP))
            ratio = next(figures) / next(figures)
        else:
            continue
        met = ratio is not None and ratio >= limit.least
        found = "not measured" if ratio is None else f"{ratio:.1f} times {limit.words}"
        verdict = "met" if met else "MISSED"
        print(f"{limit.name}: nanocap is {found} (at least {limit.least:g}): {verdict}")
        verdicts.append({**asdict(limit), "ratio": ratio, "met": met})
    return verdicts


def machine() -> dict[str, object]:
    """What the figures were measured on and with."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {"platform": platform.platform(), "python": platform.python_version(), **versions}


def parse() -> argparse.Namespace:
    names = ", ".join(CONTENDERS)
    parser = argparse.ArgumentParser(
        prog="peers",
        description=__doc__,
        epilog=SETUP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--photo", type=Path, default=PHOTO, help="default: samples' cat.jpg")
    parser.add_argument("--threads", type=int, default=1, help="of each model (default: 1)")
    parser.add_argument(
        "--tokens", type=int, help="of a caption, its end included (default: as nanocap's has)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (default: 7)")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=tuple(CONTENDERS),
        default=list(CONTENDERS),
        help=f"beside nanocap, measure only these; known: {names}",
    )
    parser.add_argument(
        "--work", type=Path, help="keep the models here for the next run (default: a temporary one)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    for name in ("threads", "rounds", "tokens"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if not options.photo.is_file():
        parser.error(f"--photo: {options.photo} is no file")
    options.photo = options.photo.resolve()  # the children run elsewhere
    return options


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="peers-") as temporary:
        work: Path = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        benchmark = Benchmark(options, work)
        # nanocap first: its caption tells how many tokens the others write
        for name in (NANOCAP, *(n for n in CONTENDERS if n in options.only and n != NANOCAP)):
            benchmark.start(name)
            if NANOCAP in benchmark.absent:
                break
        else:
            benchmark.rounds()
        benchmark.stop()
    if NANOCAP not in benchmark.results:
        return 1  # said already; there is nothing to compare with

    tokens = benchmark.results[NANOCAP].tokens
    print(f"{tokens} tokens, {options.threads} thread(s), median of {options.rounds} rounds\n")
    print(table(benchmark), end="\n\n")
    verdicts = judge(benchmark)
    if options.json is not None:
        document = {
            "photo": options.photo.name,
            "threads": options.threads,
            "tokens": tokens,
            "rounds": options.rounds,
            "machine": machine(),
            "contenders": [{**asdict(r), "ms": r.ms} for r in benchmark.results.values()],
            "absent": benchmark.absent,
            "limits": verdicts,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return int(not all(verdict["met"] for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(child_main(sys.argv[1:]) if sys.argv[1:2] in ([PREPARE], [SERVE]) else main())
