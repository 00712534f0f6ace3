"""A checkpoint as a folder of Hugging Face's libraries, rather than as a bundle.

Reading order: `layout` (what the folder says of itself), `weights` (the decoder as a GPT-2),
`graphs` (ONNX for Optimum and transformers.js), `check`, `card`, `folder` (all of it, written).
"""
