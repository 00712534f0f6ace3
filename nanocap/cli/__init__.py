"""The command line: one file a verb, imported when it is called.

A verb is a line in `VERBS` and a module `nanocap.cli.<verb>` with a click command `command`.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import click

from nanocap import __version__
from nanocap.cli.output import tell
from nanocap.errors import MissingExtraError, NanocapError

INTERRUPTED = 130  # what shells report for Ctrl-C: 128 + SIGINT


@dataclass(frozen=True)
class Verb:
    """One line of help, and the extras that together bring all that the verb imports."""

    help: str
    extras: tuple[str, ...] = ()


VERBS = {
    "caption": Verb("Caption each photo in one sentence."),
    "alt": Verb("Give images of documents alternative text."),
    "verify": Verb("Check a bundle: schema, hashes, one golden caption."),
    "eval": Verb("Score a bundle on photos with reference captions.", ("distill", "eval")),
    "calibrate": Verb("Fit a bundle's confidence to photos with captions.", ("distill", "eval")),
    "bench": Verb("Measure a bundle's speed, memory and limits.", ("eval",)),
    "label": Verb("Label photos with a teacher, for training.", ("distill",)),
    "distill": Verb("Train a student from a recipe.", ("distill",)),
    "pack": Verb("Pack a recipe and its data small, to train elsewhere.", ("distill",)),
    "average": Verb("Average the weights of several students.", ("distill",)),
    "prune": Verb("Remove the smallest channels of a student.", ("distill",)),
    "scorer": Verb("Train an image-text scorer.", ("distill",)),
    "convert": Verb("Turn a checkpoint into a bundle.", ("convert",)),
    "parity": Verb("Compare a bundle's artifacts with its fp32.", ("convert", "distill", "eval")),
    "fuse": Verb("Write a bundle as one graph, pixels to ids.", ("convert",)),
}


class Verbs(click.Group):
    """A group whose list and help come from `VERBS`, without importing any verb."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        try:
            module: Any = import_module(f"nanocap.cli.{cmd_name}")
        except ModuleNotFoundError as error:
            raise _missing(cmd_name, error) from error
        return cast(click.Command, module.command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            try:
                return super().invoke(ctx)
            except ImportError as error:  # verbs import what they start when they start it
                raise _missing(ctx.invoked_subcommand or "", error) from error
        except NanocapError as error:
            tell(error)
            ctx.exit(error.exit_code)


def _missing(name: str, error: ImportError) -> Exception:
    """What to raise for what the verb `name` did not find: all of its extras, if it has any.

    A part of the package that misses something names the extra that it knows; a verb of several
    parts would send its user to pip once for each.
    """
    verb = VERBS.get(name)
    if isinstance(error, MissingExtraError):
        if verb is None or error.extra not in verb.extras:
            return error
        cause = error.__cause__ or error.__context__
        package = cause.name if isinstance(cause, ImportError) else None
    elif isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if verb is None or not verb.extras or package == "nanocap":
            return error
    else:
        return error
    return MissingExtraError(f"nanocap {name}", ",".join(verb.extras), package)


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="nanocap VERB --help shows examples. Exit codes: 0 done, 1 some inputs failed, 2 usage.",
)
@click.version_option(__version__, "-V", "--version", message="nanocap %(version)s")
def group() -> None:
    """Caption photos on this device, offline.

    \b
    nanocap caption photo.jpg
    nanocap caption --json holiday/ > captions.jsonl
    """


def run(model: object = None) -> None:
    """Run the command line of this process, and end it; `model` is what `runtime.first` gives."""
    code: Any = 1  # of an exception that nobody expects
    atexit.register(lambda: _end(code))  # the first to register is the last to be called
    try:
        code = group.main(prog_name="nanocap", standalone_mode=False, obj=model)
        sys.stdout.flush()
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:  # such as a full disk behind standard output
        what = os.fsdecode(error.filename) if error.filename else "the output cannot be written"
        tell(f"{what}: {error.strerror or error}")
        code = 1
    code = code if isinstance(code, int) else 0
    sys.exit(code)


def _end(code: int) -> None:
    """End the process as it is.

    To take modules and sessions apart takes a fifth of the time of a caption, and the kernel takes
    back what they hold in any case.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # what cannot be written was reported before
            stream.flush()
    os._exit(code)
