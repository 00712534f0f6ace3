"""Running a bundle: `captioner` (the public API), `decoding` (the search), `engines`.

Needs numpy, Pillow and one engine's package; never torch, never the network.
"""
