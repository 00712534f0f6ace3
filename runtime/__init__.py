"""Running a bundle: `captioner` (the public API), `search` (the loop over its graphs), `engines`.

Needs numpy, Pillow and one engine's package; never torch, never the network.
"""
