"""Alternative text for the images of documents: web pages, Markdown, reStructuredText, EPUB.

`documents.py` opens a file of any kind; `FORMATS` in `document.py` says who finds images in which.
Nothing but the words is changed: every other byte stays as it was.
"""
