"""A caption in the words of alternative text.

After W3C's advice, https://www.w3.org/WAI/tutorials/images/tips/: no "image of", and nothing that
cannot be seen: age, ethnicity and gender are guesses, unless the author asks for them.
"""

from __future__ import annotations

import re

PEOPLE = ("person", "as-seen")  # how people are called

_IMAGE_OF = re.compile(
    r"^(?:an?|the|this is an?)\s+(?:[\w-]+\s+){0,3}?(?:image|photo|photograph|picture|shot)s?"
    r"\s+(?:of|shows|showing)\s+",
    re.IGNORECASE,
)
_ONE = (
    "man woman boy girl lady gentleman guy male female child kid toddler baby teenager bride groom"
)
_MANY = "men women boys girls ladies gentlemen guys males females children kids toddlers babies"
_GUESS = (
    "young old elderly older younger little small adult middle-aged teenage male female asian"
    " african american african-american caucasian indian hispanic latino arab european"
)
_GUESSES = rf"(?:(?:{'|'.join(_GUESS.split())}|black|white)[,\s]+)*"
_BABY = r"baby(?=\s+(?:[a-z]+ing|is|are|in|on|with|and|who|at|sits|lies|sleeps)\b|[.,]|$)"
_SINGULAR = re.compile(
    rf"\b(?:(an?)\s+)?({_GUESSES})({'|'.join(_ONE.split()).replace('baby', _BABY)})\b('s)?",
    re.IGNORECASE,
)
_PLURAL = re.compile(rf"\b{_GUESSES}({'|'.join(_MANY.split())})\b", re.IGNORECASE)
_PERSON = re.compile(rf"\b(an?)\s+{_GUESSES}(person|people)\b", re.IGNORECASE)
_TWO = re.compile(r"\ba person and a person\b", re.IGNORECASE)
_THEIRS = {"his": "their", "her": "their", "himself": "themself", "herself": "themself"}
_POSSESSIVE = re.compile(rf"\b(?:{'|'.join(_THEIRS)})\b", re.IGNORECASE)


def alternative(caption: str, people: str = "person") -> str:
    """The words for a picture of which a captioner says `caption`.

    Args:
        people: `person` leaves out age, ethnicity and gender; `as-seen` keeps what the model said.
    """
    text = _IMAGE_OF.sub("", " ".join(caption.split()))
    if people == "person":
        text = _SINGULAR.sub(_person, text)
        text = _PLURAL.sub("people", text)
        text = _PERSON.sub(lambda found: f"{found[1][:1]} {found[2]}", text)
        text = _TWO.sub("two people", text)
        text = _POSSESSIVE.sub(lambda found: _THEIRS[found.group().lower()], text)
    return text[:1].upper() + text[1:]


def _person(found: re.Match[str]) -> str:
    article = f"{found[1][:1]} " if found[1] else ""
    return f"{article}person{found[4] or ''}"
