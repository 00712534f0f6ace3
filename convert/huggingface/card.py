"""`README.md` of a folder: what a model hub shows."""

from __future__ import annotations

from nanocap.bundle.card import LIMITS, training_section
from nanocap.convert.checkpoint import Checkpoint

HEAD = """\
---
library_name: transformers
pipeline_tag: image-to-text
tags: [image-captioning, nanocap, onnx, transformers.js]
---

# {name}

An image captioner of {parameters:.1f} million parameters. Written by `nanocap convert --to
transformers`; do not edit, convert again. Captions are lower case without a full stop, searched
greedily unless you say otherwise.

## Use

transformers, with `pip install 'nanocap[transformers]'`:

```python
import nanocap.interop  # registers the encoder and the image processor
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

model = AutoModelForImageTextToText.from_pretrained(folder)
inputs = AutoImageProcessor.from_pretrained(folder)("photo.jpg", return_tensors="pt")
print(AutoTokenizer.from_pretrained(folder).decode(model.generate(**inputs)[0], True))
```

Lengths: `model.generate(**inputs, forced_bos_token_id={lengths})`.

Optimum, with `pip install 'nanocap[optimum]'`: after the same import,
`optimum.onnxruntime.ORTModelForVision2Seq.from_pretrained(folder)` stands for the model above;
`optimum-cli export onnx --trust-remote-code --model folder out` exports it anew.

transformers.js, where no Python is needed; one photo a call, unless all are of one size:

```js
const caption = await pipeline('image-to-text', folder);
console.log((await caption('photo.jpg'))[0].generated_text);
```
"""


def folder_card(checkpoint: Checkpoint, parameters: int) -> str:
    """The card, in Markdown."""
    lengths = checkpoint.controls().length
    head = HEAD.format(
        name=checkpoint.training.get("recipe", "student"),
        parameters=parameters / 1e6,
        lengths=" or ".join(f"{token} ({name})" for name, token in lengths.items()),
    )
    return "\n".join([head, training_section(checkpoint.training), LIMITS])
