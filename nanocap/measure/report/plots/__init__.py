"""Plots as inline SVG, in the page's own type and colours.

- `drawing`: lines, texts and marks, and labels that do not cover each other
- `scale`: from values to places, and round values to name
- `intervals`, `bubbles`, `stages`, `roofline`: one plot each
"""
