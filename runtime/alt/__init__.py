"""Alternative text for the images of documents: web pages, Markdown, reStructuredText.

`document.py` opens a file and writes it back with words in it; `FORMATS` there says who finds the
images of a kind of file. Nothing but the words is changed: every other byte stays as it was.
"""
