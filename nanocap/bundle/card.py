"""The model card: what the bundle is, how it was made and measured, and what it is not for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nanocap.bundle.manifest import Manifest

CARD = "README.md"  # its name in the bundle
QUALITY = "quality"  # key of an artifact's `measured`: records by the name of the set of photos
COMPARISON = "comparison"  # the same: what the parity report says of it
SHOWN = {  # of a set
    **{"cider": "CIDEr", "bleu4": "BLEU-4", "rouge_l": "ROUGE-L", "meteor": "METEOR"},
    **{"spice": "SPICE", "distinct": "distinct", "hallucination": "hallucinated objects, %"},
    **{"worn": "worn phrases, points", "calibration": "calibration error"},
}
THIS = "this model"  # the run that made it

UNCALIBRATED = """Confidence ranks captions; it is not the probability that a
  caption is correct."""
CALIBRATED = """Confidence is the probability that all is
  there that the caption names, fitted to photos like those it was trained on; of others it says
  too much."""

USE = """\
## Use

```
nanocap caption --bundle {folder} photo.jpg
```

The model captions a photo with one English sentence, on the device, without a network.
`--length short` or `--length long` sets the length.
"""

LIMITS = """\
## Limits

- **It guesses.** Colours, counts, gender, actions and uncommon objects are often wrong, in a
  sentence as fluent as a correct one. {confidence}
- **Everyday photos only.** It knows photos like those it was trained on (see Training) and mistakes
  rare things for common ones. Diagrams, screenshots, documents, drawings, art, medical and
  satellite images are outside its range.
- **English only**, one sentence a photo.
- **Text in a photo is not read.**
- **People and places are not recognized.** It guesses gender, age and activity from appearance,
  with the bias of its training data.

Do not rely on it where a wrong caption can cause harm: to identify, judge or monitor people, in
medicine, in driving or navigation, in law enforcement, or as the only description for a blind
reader of something important. Have a person check captions before they are published.
"""


def model_card(manifest: Manifest, size: int) -> str:
    """`README.md` of a bundle, in Markdown; `size` is the bytes of its other files."""
    parameters = manifest.dimensions.get("parameters")
    count = f"{parameters / 1e6:.1f} million parameters, " if parameters else ""
    golden = manifest.golden
    sections = [
        f"# {manifest.name} {manifest.version}\n",
        f"An image captioner for use on the device: {count}{size / 1e6:.1f} MB."
        " Written by `nanocap convert`; changes by hand are lost.\n",
        f"{_architecture(manifest.dimensions)}\n",
        USE.format(folder=manifest.name),
        _artifacts(manifest),
        training_section(manifest.training),
        LIMITS.format(confidence=UNCALIBRATED if manifest.confidence is None else CALIBRATED),
        "## Check\n",
        f"`nanocap verify` compares every file with its SHA-256 and captions `{golden.image}` with"
        f" {golden.artifact}. The expected caption is: {_cell(golden.caption)}\n",
    ]
    return "\n".join(sections)


def _architecture(dimensions: Mapping[str, Any]) -> str:
    tokens = " to ".join(str(count) for count in dimensions.get("keep", ()))
    pruned = ", attentions and MLPs pruned" if "pruned" in dimensions else ""
    return (
        f"EfficientNet-{str(dimensions.get('trunk', '?')).capitalize()} trunk at"
        f" {dimensions.get('image_size', '?')} pixels, {dimensions.get('encoder_blocks', '?')}"
        f" transformer blocks ({dimensions.get('reducer', '?')}{': ' + tokens if tokens else ''}"
        f" visual tokens), {dimensions['layers']} decoder layers of width {dimensions['width']}"
        f"{pruned},"
        f" a vocabulary of {dimensions['vocabulary']:,} word pieces."
    )


def _artifacts(manifest: Manifest) -> str:
    lines = ["## Artifacts", ""]
    for artifact in manifest.artifacts:
        lines.append(
            f"**{artifact.name}** ({artifact.backend}, {artifact.precision},"
            f" {artifact.visual_tokens} visual tokens)"
        )
        measured = {k: v for k, v in artifact.measured.items() if k not in (QUALITY, COMPARISON)}
        quality = artifact.measured.get(QUALITY)
        lines += ["", *_table(("figure", "value"), _flat(measured)), ""]
        if isinstance(quality, Mapping) and quality:
            lines += [*_quality(quality), ""]
    lines += _compared(manifest)
    lines.append(
        "Quality is measured by `nanocap eval`, with the 95 % interval over the choice of photos."
        " Parity compares greedy captions of probe photos, token by token, with the reference named"
        " in `against`."
    )
    return "\n".join(lines) + "\n"


def _compared(manifest: Manifest) -> list[str]:
    """The parity report: a row an artifact that it knows."""
    rows = []
    for artifact in manifest.artifacts:
        found = artifact.measured.get(COMPARISON)
        if isinstance(found, Mapping):
            row = (
                _scaled(found.get("bytes"), 1e6, 2),
                _scaled(found.get("max_logit_difference"), 1, 4),
                _scaled(found.get("captions_equal"), 0.01, 1),
                _interval(found.get("cider")),
                _interval(found.get("cider_difference"), "+"),
                _scaled(found.get("ms"), 1, 1),
                _scaled(found.get("peak_bytes"), 1e6, 0),
            )
            rows.append((artifact.name, *row))
    if not rows:
        return []
    head = ["artifact", "MB", "largest logit difference", "same captions, %", "CIDEr"]
    head += ["difference", "ms a caption", "peak MB"]
    return ["**Side by side**, by `nanocap parity`:", "", *_table(head, rows), ""]


def _scaled(value: object, unit: float, places: int) -> str:
    return f"{value / unit:.{places}f}" if isinstance(value, int | float) else ""


def _quality(sets: Mapping[str, Any]) -> list[str]:
    """One row a set of photos; figures with their intervals."""
    rows = []
    for name, found in sets.items():
        values = found if isinstance(found, Mapping) else {}
        figures = values.get("figures", {})
        cells = (_interval(figures.get(key)) for key in SHOWN)
        rows.append((name, values.get("photos", "?"), *cells))
    columns = zip(("photos of", "photos", *SHOWN.values()), *rows, strict=True)
    head, *shown = zip(*(column for column in columns if any(column[1:])), strict=True)
    return _table(head, shown)


def _interval(figure: object, sign: str = "") -> str:
    if not isinstance(figure, Mapping) or not {"value", "low", "high"} <= figure.keys():
        return ""
    value, low, high = (float(figure[key]) for key in ("value", "low", "high"))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def training_section(training: Mapping[str, Any]) -> str:
    """Runs, data and weights behind a model, with their licences, in Markdown."""
    runs = list(_runs(training, THIS))
    lines = ["## Training", ""]
    if training:
        rows = [
            (
                role,
                run.get("recipe", "?"),
                run.get("seed", "?"),
                _steps(run),
                run.get("fingerprint", ""),
            )
            for role, run in runs
        ]
        lines += [*_table(("run", "recipe", "seed", "steps", "fingerprint"), rows), ""]
    lines += ["Data and licences. The photos and captions are not in this bundle.", ""]
    data = {
        (d.get("name", "?"), d.get("licence", "unknown")): None
        for _, run in runs
        for d in _objects(run, "data")
    }
    lines += [*_table(("data", "licence"), [*data] or [("not recorded", "unknown")]), ""]
    weights = {
        (w.get("origin", w.get("name", "?")), w.get("licence", "unknown")): None
        for _, run in runs
        for w in _objects(run, "weights")
    }
    lines += ["Pretrained weights:", ""]
    lines += _table(("origin", "licence"), [*weights] or [("none recorded", "")])
    return "\n".join(lines) + "\n"


def _runs(training: Mapping[str, Any], role: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A run, then what it went on from and what taught it."""
    yield role, training
    name = role if role == THIS else str(training.get("recipe", role))
    start = training.get("start")
    if isinstance(start, Mapping):
        yield from _runs(start, f"what {name} started from")
    for number, teacher in enumerate(_objects(training, "teachers"), 1):
        yield from _runs(teacher, f"teacher {number} of {name}")


def _steps(run: Mapping[str, Any]) -> str:
    steps = run.get("steps", {})
    if not isinstance(steps, Mapping):
        return str(steps)
    return ", ".join(f"{name} {count}" for name, count in steps.items())


def _objects(values: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    entries = values.get(key, [])
    entries = entries if isinstance(entries, Sequence) and not isinstance(entries, str) else []
    return [e if isinstance(e, Mapping) else {"name": e, "origin": e} for e in entries]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested figures as rows: `parity.tokens_equal`."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", f"{value:,}" if type(value) is int else str(value)))
    return rows


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]


def _cell(value: object) -> str:
    """Text that stays in its cell, whatever a recipe's author wrote."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
