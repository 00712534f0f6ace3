"""Quality of Core ML's artifacts where Core ML does not run: by the tests' interpreter.

The saved ML programs are evaluated operator by operator, with the weights that stand in the files,
behind the runtime's own `Captioner`, and the captions are scored as `nanocap eval` scores them. On
macOS take `nanocap eval BUNDLE --artifact coreml-fp16` instead.

    python tests/benchmarks/coreml_quality.py BUNDLE --data 'DATA/flickr8k-val-*.tar'
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from unittest import mock

from nanocap import Captioner
from nanocap.bundle import Bundle
from nanocap.distill.data.sources import Example, read_source, source_of
from nanocap.measure.metrics.reference import Missing, reference_measures

TESTS = Path(__file__).parents[1]
SCORERS = ("cider", "bleu")
SHOWN = ("cider", "bleu4")


def captions_of(bundle: Path, artifact: str, examples: list[Example]) -> dict[str, str]:
    """What an artifact says of each photo, with the interpreter in Core ML's place."""
    from convert.coreml.interpreter import Interpreter

    def opened(package: str, compute_units: object = None) -> Interpreter:
        return Interpreter(Path(package))

    with (
        mock.patch("coremltools.models.MLModel", opened),
        mock.patch.object(platform, "system", return_value="Darwin"),
    ):
        captioner = Captioner(bundle, artifact=artifact)
        return {example.key: captioner(example.image).text for example in examples}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", required=True, help="shards with references (a glob, quoted)")
    parser.add_argument("--artifacts", nargs="+", help="[all of Core ML]")
    options = parser.parse_args()
    sys.path.append(str(TESTS))  # behind everything: only the interpreter is wanted from there
    artifacts = Bundle(options.bundle).manifest.artifacts
    names = options.artifacts or [a.name for a in artifacts if a.backend == "coreml"]
    examples = list(read_source(source_of(options.data), Path()))
    references = {example.key: example.captions for example in examples}
    print("| artifact | CIDEr | BLEU-4 |\n|---|---|---|")
    for name in names:
        said = captions_of(options.bundle, name, examples)
        measures = reference_measures(said, references, SCORERS)
        found = {one.key: one.interval() for one in measures if not isinstance(one, Missing)}
        cells = [f"{found[k].value:.1f} [{found[k].low:.1f}, {found[k].high:.1f}]" for k in SHOWN]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
