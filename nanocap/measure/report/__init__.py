"""What was measured as a page: one HTML file that needs no network, to open and to pass on.

- `page`: the template's frame, and the one file, whole or not at all
- `plots`: plots as inline SVG
- `probes`, `attention`: inner tensors of a bundle's own graphs, and where its decoder looked
- `words`: a caption as words, each with its map
- `choice`, `cards`: which photos are shown, and what is shown of each
- `eval_page`, `bench_page`: the two pages
"""
