"""The program `nanocap`, also as `python -m nanocap`."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress

from nanocap.files.streams import fill_streams

#: Options of `nanocap caption` that do not choose a model, and how many values each takes.
BUNDLED = {
    **{"--json": 0, "--beams": 1, "--length": 1, "--n-best": 1, "--max-pixels": 1},
    **{"--min-confidence": 1, "--abstain": 0},
}


INTERRUPTED = 130  # what shells report for Ctrl-C: 128 + SIGINT


def main() -> None:
    """Run the command line; for one photo, load the bundled model while all else is imported."""
    try:
        _run()
    except KeyboardInterrupt:  # while something was imported
        os._exit(INTERRUPTED)


def _run() -> None:
    fill_streams()
    model = None
    if is_one_photo(sys.argv[1:]):
        gc.disable()  # its rounds over all that is imported find nothing; the end comes soon
        # What goes wrong here goes wrong again below, where it is made a line.
        with suppress(Exception):
            from nanocap.runtime.first import load_first

            model = load_first()
    from nanocap.cli import run

    run(model)


def is_one_photo(arguments: list[str]) -> bool:
    """Whether a command line asks for a caption of a single file by the bundled model.

    It may say no to some that do: these only start a little later.
    """
    rest = arguments[:0:-1]
    paths = []
    while rest:
        argument = rest.pop()
        if argument in BUNDLED:
            del rest[len(rest) - BUNDLED[argument] :]
        else:
            paths.append(argument)
    return arguments[:1] == ["caption"] and len(paths) == 1 and os.path.isfile(paths[0])


if __name__ == "__main__":
    main()
