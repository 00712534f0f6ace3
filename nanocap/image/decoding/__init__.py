"""From the bytes of a file or the numbers of an array to pixels, within bounds of memory and time.

`nanocap.image.formats` opens, `nanocap.image.image` decodes; here is what they need to know of each
format.
"""
