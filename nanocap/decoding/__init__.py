"""From the bytes of a file or the numbers of an array to pixels, within bounds of memory and time.

`nanocap.formats` opens, `nanocap.image` decodes; here is what they need to know of each format.
"""
