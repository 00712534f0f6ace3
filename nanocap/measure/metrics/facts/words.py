"""From text to units: words or phrases of the lexicon with what each may be.

Lemmas come from `simplemma` (its English list travels in the package). It has odd lemmas for some
forms (mopping -> mope), so a lemma counts only if the lexicon holds it, and the plain rules of
English spelling are tried after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from nanocap.errors import MissingExtraError
from nanocap.measure.metrics.facts.entries import lexicon

Form = Literal["base", "s", "ing", "ed"]

TOKEN = re.compile(r"[a-z]+|'s\b|[0-9]+|[,.;:!?]")


@dataclass(frozen=True)
class Unit:
    """A word or phrase, and the name of its set as each part of speech (None: it cannot be one)."""

    text: str
    noun: str | None = None
    attribute: str | None = None
    verb: str | None = None
    preposition: str | None = None
    form: Form = "base"  # of the verb; "ed" is the past and the participle, irregular ones too
    plural: bool = False  # whether the noun is in the plural

    @property
    def known(self) -> bool:
        return bool(self.noun or self.attribute or self.verb or self.preposition)


def units(text: str) -> list[Unit]:
    """The text cut into phrases of the lexicon, longest first, single words and marks.

    Hyphens part words; letters beyond a to z are skipped.

    Raises:
        MissingExtraError: `simplemma` is not installed.
    """
    tokens = TOKEN.findall(text.lower().replace("\u2019", "'"))
    longest = _longest()
    found = []
    at = 0
    while at < len(tokens):
        step = 1
        unit = None
        for count in range(min(longest.get(tokens[at], 1), len(tokens) - at), 1, -1):
            unit = phrase(" ".join(tokens[at : at + count]))
            if unit:
                step = count
                break
        found.append(unit or word(tokens[at]))
        at += step
    return found


@lru_cache(maxsize=1 << 16)
def word(token: str) -> Unit:
    """What a single word may be."""
    known = lexicon()
    noun, plural = _noun(token)
    verb, form = _verb(token)
    attribute, preposition = known.attributes.names.get(token), known.prepositions.names.get(token)
    return Unit(token, noun, attribute, verb, preposition, form, plural)


@lru_cache(maxsize=1 << 16)
def phrase(text: str) -> Unit | None:
    """What several words may be together, the noun's last and the verb's first inflected."""
    known = lexicon()
    first, _, rest = text.partition(" ")
    start, _, last = text.rpartition(" ")
    noun, plural = None, False
    for ending in _singulars(last):
        noun = noun or known.objects.names.get(f"{start} {ending}")
        plural = plural or (noun is not None and ending != last)
    verb, form = _verb(first, f" {rest}")
    attribute, preposition = known.attributes.names.get(text), known.prepositions.names.get(text)
    unit = Unit(text, noun, attribute, verb, preposition, form, plural)
    return unit if unit.known else None


def _noun(token: str) -> tuple[str | None, bool]:
    names = lexicon().objects.names
    for ending in _singulars(token):
        if ending in names:
            return names[ending], ending != token or token == "people"
    return None, False


def _verb(token: str, rest: str = "") -> tuple[str | None, Form]:
    names = lexicon().verbs.names
    for base, form in _bases(token):
        if base + rest in names:
            return names[base + rest], form
    return None, "base"


def base_noun(token: str) -> str | None:
    """The noun of the lexicon that a word is, in the singular (`man` of `men`), if it is one."""
    names = lexicon().objects.names
    return next((word for word in _singulars(token) if word in names), None)


@lru_cache(maxsize=1 << 16)
def _singulars(token: str) -> tuple[str, ...]:
    """The word itself and what it may be the plural of."""
    found = [token]
    lemma = _lemma(token)
    if lemma != token and not token.endswith(("ing", "ed", "er", "est")):
        found.append(lemma)
    if token.endswith("s") and not token.endswith("ss"):
        found.append(token[:-1])
        if token.endswith("es"):
            found.append(token[:-2])
    return tuple(found)


@lru_cache(maxsize=1 << 16)
def _bases(token: str) -> tuple[tuple[str, Form], ...]:
    """The word as a verb's base form, and the verbs it may be a form of."""
    found: list[tuple[str, Form]] = [(token, "base")]
    lemma = _lemma(token)
    if lemma != token:
        found.append((lemma, _form(token)))
    for ending in ("ing", "ed", "es", "s"):
        if token.endswith(ending) and len(token) > len(ending) + 1:
            stem = token[: -len(ending)]
            found += [(stem, _form(token)), (stem + "e", _form(token))]
            if stem[-1] == stem[-2]:
                found.append((stem[:-1], _form(token)))
            if stem[-1] == "i":
                found.append((stem[:-1] + "y", _form(token)))
    return tuple(found)


def _form(token: str) -> Form:
    if token.endswith("ing"):
        return "ing"
    return "s" if token.endswith("s") else "ed"


def _lemma(token: str) -> str:
    try:
        import simplemma
    except ImportError as error:
        raise MissingExtraError("nanocap eval", "eval", "simplemma") from error
    return simplemma.lemmatize(token, lang="en")


@cache
def _longest() -> dict[str, int]:
    """The words of the longest phrase by first word, under every form that word may take."""
    found: dict[str, int] = {}
    for first, count in _phrases():
        for form in (first, *_inflections(first)):
            found[form] = max(found.get(form, 1), count)
    return found


def _phrases() -> Iterator[tuple[str, int]]:
    known = lexicon()
    for entries in (known.objects, known.attributes, known.verbs, known.prepositions):
        for text in entries.names:
            parts = text.split(" ")
            if len(parts) > 1:
                yield parts[0], len(parts)


# Forms of the verbs that open a phrase and do not follow the spelling rules.
_IRREGULAR = {
    "be": "being", "blow": "blew", "come": "came", "do": "did does done", "draw": "drew",
    "drink": "drank", "drive": "drove driven", "eat": "ate eaten", "fall": "fell fallen",
    "get": "got gotten", "give": "gave given", "go": "goes went gone", "hang": "hung",
    "have": "has having had", "hold": "held", "lean": "leant", "leave": "left",
    "lie": "lying lay lain", "make": "made", "ride": "rode ridden", "run": "ran",
    "sit": "sat", "speak": "spoke spoken", "stand": "stood", "swing": "swung",
    "take": "took taken", "throw": "threw thrown", "write": "wrote written",
}  # fmt: skip


def _inflections(base: str) -> list[str]:
    stem = base[:-1] if base.endswith("e") else base
    regular = [base + "s", base + "es", stem + "ing", stem + "ed"]
    regular += [base + base[-1] + "ing", base + base[-1] + "ed"]
    if base.endswith("y"):
        regular += [base[:-1] + "ies", base[:-1] + "ied"]
    return regular + _IRREGULAR.get(base, "").split()
