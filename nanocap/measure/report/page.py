"""One HTML file: templates, with everything from outside escaped, and a rename at the end.

Its policy lets the browser load nothing at all and run no script but the page's own, by its hash: a
caption or a file name that slipped through would still be inert.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nanocap import __version__
from nanocap.errors import NanocapError
from nanocap.files.whole_file import whole_file

NAME = "index.html"
STYLE, SCRIPT = "style.css", "script.js"


def render(template: str, values: Mapping[str, Any]) -> str:
    """The page as text.

    Args:
        template: a file of `templates/` that extends `base.html`.
        values: what it names; texts are escaped, `Markup` (plots) is not.
    """
    environment = Environment(
        loader=PackageLoader("nanocap.measure.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source = files("nanocap.measure.report").joinpath("templates")
    script = source.joinpath(SCRIPT).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    frame = {
        "style": Markup(source.joinpath(STYLE).read_text(encoding="utf-8")),
        "script": Markup(script),
        "digest": digest,
        "version": __version__,
    }
    return environment.get_template(template).render({**values, **frame})


def write_page(folder: Path, html: str) -> Path:
    """`folder/index.html`, whole or not at all; a page that was there is replaced.

    Raises:
        NanocapError: it cannot be written.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(html, encoding="utf-8")
    except OSError as error:
        raise NanocapError(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from None
    return path
