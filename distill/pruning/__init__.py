"""Structured pruning: one budget over encoder, cross-attention and decoder; sliced for real.

Shi et al., "UPop: Unified and Progressive Pruning for Compressing Vision-Language Transformers"
(ICML 2023), as an attribute of a training stage, and by magnitude in one shot to compare with.
Reading order: `axes`, `budget`, `masks`, `slicing`, `magnitude`.
"""
