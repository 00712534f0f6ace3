"""Photos: from whatever holds one to the pixels that the encoder takes.

Reading order: `rule` (what pixels), `source` (what may hold a photo), `image`, `formats`,
`decoding` (how the bytes become RGB, within limits).
"""
