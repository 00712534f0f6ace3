"""What a run's recipe calls `before:NAME`: files that earlier runs of its chain have made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nanocap.errors import RecipeError
from nanocap.files.digest import file_digest

STUDENT, PLAN = "student.safetensors", "plan.json"  # what a run gives; what decided labels
MENTION = re.compile("before:([a-z0-9][a-z0-9-]*)(/?)")


def mentioned(text: str) -> list[str]:
    """The names in a text."""
    return [name for name, _ in MENTION.findall(text)]


@dataclass(frozen=True)
class Earlier:
    """The folder below which a run's earlier runs lie, one folder a name."""

    folder: Path

    def located(self, text: str) -> str:
        """The text with every `before:NAME` as the student, every `before:NAME/` as the folder."""
        folder = self.folder.resolve()

        def path(match: re.Match[str]) -> str:
            return f"{folder / match[1]}/{'' if match[2] else STUDENT}"

        return MENTION.sub(path, text)

    def digest(self, text: str) -> str:
        """Of all that decides what the mentioned runs have made; empty if nothing is mentioned.

        Raises:
            RecipeError: one has not been made.
        """
        return "".join(map(self._digest, mentioned(text)))

    def _digest(self, name: str) -> str:
        for made in (STUDENT, PLAN):
            path = self.folder / name / made
            if path.exists():
                return file_digest(path)
        raise RecipeError(f"before:{name} is not there: {self.folder / name}")


NOTHING = Earlier(Path())
