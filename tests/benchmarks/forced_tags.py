"""Does a student say a word that no training caption held, once its concept head is sure of it?

Fifty words of the concept head that stand in no caption of the recipe's photos are forced, one a
photo, as the likeliest evidence with probability 0.9; what the head itself finds comes behind, at a
tenth at most. The photos are drawn: a plain shape on a ground. Printed are all captions, and the
share that says its word.

    python tests/benchmarks/forced_tags.py runs/default/student.safetensors \
        --recipe distill/recipes/default.toml
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from nanocap.distill.data.sources import read_source
from nanocap.distill.recipes.recipe import load_recipe
from nanocap.distill.teachers.student import StudentTeacher, read
from nanocap.student.evidence import ConceptHead, Seen

FORCED, OTHERS = math.log(0.9), math.log(0.1)
WORDS, SIDE = 50, 224


class Telling(nn.Module):
    """An encoder that is told a word of each photo."""

    def __init__(self, encoder: nn.Module, pieces_B: Tensor):
        super().__init__()
        self.encoder, self.pieces = encoder, pieces_B

    def forward(self, pixels_BCHW: Tensor) -> Seen:
        seen: Seen = self.encoder(pixels_BCHW)
        told = self.pieces[:, None]
        evidence = torch.cat([told, seen.evidence[:, :-1]], 1)
        behind = seen.certainty[:, :-1].clamp(max=OTHERS)
        certainty = torch.cat([torch.full_like(behind[:, :1], FORCED), behind], 1)
        return seen._replace(evidence=evidence, certainty=certainty)


def draw(seed: int) -> Image.Image:
    """A shape on a ground, both of some colour."""
    random = np.random.default_rng(seed)
    ground, colour = (tuple(map(int, random.integers(0, 256, 3))) for _ in range(2))
    image = Image.new("RGB", (SIDE, SIDE), ground)
    low, high = random.integers(20, 90, 2), random.integers(120, 210, 2)
    pen, box = ImageDraw.Draw(image), [*map(int, low), *map(int, high)]
    (pen.ellipse if seed % 2 else pen.rectangle)(box, colour)
    return image


def never_said(head: ConceptHead, pieces: list[str], recipe: Path, data: Path | None) -> list[int]:
    """Concepts whose word stands in no caption of the recipe's photos, in no order."""
    loaded = load_recipe(recipe)
    root = data if data is not None else recipe.parent / loaded.data.root
    said = {
        word
        for source in loaded.data.sources
        for example in read_source(source, root)
        for caption in example.captions
        for word in "".join(c if c.isalpha() else " " for c in caption.lower()).split()
    }

    def unknown(word: str) -> bool:
        return not {word, f"{word}s", f"{word}es"} & said

    found = [piece for piece in head.pieces.tolist() if unknown(pieces[piece].lstrip("\u2581"))]
    return sorted(found, key=lambda piece: hashlib.sha256(pieces[piece].encode()).digest())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("student", help="student.safetensors")
    parser.add_argument("--recipe", type=Path, required=True, help="what it was trained with")
    parser.add_argument("--data", type=Path, help="folder of the recipe's shards")
    parser.add_argument("--beams", type=int, default=3)
    options = parser.parse_args()
    finished = read(options.student)
    head = finished.student.encoder.concepts
    if not isinstance(head, ConceptHead):
        parser.error(f"{options.student} has no concept head")
    teacher = StudentTeacher([finished])
    size = finished.student.dimensions.vocabulary
    pieces = [teacher.tokenizer.id_to_token(piece) or "" for piece in range(size)]
    forced = never_said(head, pieces, options.recipe, options.data)[:WORDS]
    encoder = Telling(finished.student.encoder, torch.tensor(forced, device=teacher.device))
    finished.student.encoder = encoder  # type: ignore[assignment]
    captions = teacher.caption([draw(seed) for seed in range(len(forced))], options.beams)
    hits = 0
    for piece, said in zip(forced, captions, strict=True):
        word, text = pieces[piece].lstrip("\u2581"), said[0].text
        hit = word in text.lower().rstrip(".").split()
        hits += hit
        print(f"{'+' if hit else '-'} {word:16}{text}")
    print(f"{hits} of {len(forced)}: {100 * hits / max(1, len(forced)):.0f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
