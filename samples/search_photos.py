"""Sort photos by how well a text fits them: python search_photos.py SCORER TEXT PHOTO...

SCORER is a folder that `nanocap scorer RECIPE --onnx` wrote. Needs `pip install tokenizers` beside
nanocap's runtime, and no torch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nanocap.image.image import load_image
from nanocap.image.rule import ImageRule

# isort: split
# after nanocap, which turns ONNX Runtime's telemetry off
import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

if len(sys.argv) < 4:
    sys.exit("usage: python search_photos.py SCORER TEXT PHOTO...")
folder, text, paths = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]

# a photo's vector does not depend on the text: an app keeps one for each photo
rule = ImageRule(size=json.loads((folder / "scorer.json").read_text())["image_size"])
image = InferenceSession(folder / "image.onnx")
vectors = [image.run(None, {"pixels": load_image(path, rule)[None]})[0][0] for path in paths]

tokens = np.array([Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids])
words = InferenceSession(folder / "text.onnx")
[[wanted]] = words.run(None, {"tokens": tokens, "mask": np.ones_like(tokens)})

scores = np.stack(vectors) @ wanted
for index in np.argsort(-scores):
    print(f"{scores[index]:.3f}  {paths[index]}")
