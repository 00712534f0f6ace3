"""What supports a text: its words by role, what backs them, and the text without the rest.

A text is cut into chunks (a noun phrase, a verb with its object, a preposition with its noun),
and a chunk whose noun or verb nobody backs goes as a whole; before a noun that is backed, only the
words that are not. What is left reads as before, as whatever goes could have been left out by who
wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nanocap.distill.labelling.decision import Decision
from nanocap.distill.labelling.proposals import voices
from nanocap.measure.metrics.facts import Facts, extract
from nanocap.measure.metrics.facts.entries import lexicon
from nanocap.measure.metrics.facts.extraction import ACTORS, is_kind
from nanocap.measure.metrics.facts.roles import FUNCTION, Role, roles
from nanocap.measure.metrics.facts.words import TOKEN, Unit, units

GROUPS = frozenset("couple crowd family band choir audience".split())  # more than one person
# Who says "a man" does not back "a woman", nor "a crowd"; but he may well have seen a doctor.
LITERAL = GROUPS | frozenset("man woman boy girl child baby".split())
FEWEST_WORDS = 3
FEWEST_FACTS = 3  # "a man sits" is less than any teacher says
_CUTS = (Role.PREPOSITION, Role.VERB, Role.BE, Role.TO, Role.WHO, Role.AND, Role.WHILE, Role.COMMA)
_GLUE = (Role.BE, Role.TO, Role.WHO, Role.AND, Role.WHILE, Role.COMMA, Role.STOP, Role.DETERMINER)
_MODIFIERS = (Role.ADJECTIVE, Role.PARTICIPLE)
_DEGREES = ("very", "so", "too", "really", "quite", "rather")


@dataclass(frozen=True)
class Piece:
    """A word or phrase at `text[start:end]`."""

    unit: Unit
    role: Role
    start: int
    end: int
    head: bool = False  # a noun that no other noun follows

    @property
    def unknown(self) -> bool:
        """Whether it is a word of content that the lexicon lacks, such as a name."""
        return self.role is Role.OTHER and self.unit.text not in FUNCTION


def pieces(text: str) -> list[Piece]:
    """The pieces in order; marks that the parser skips lie between them.

    A text whose lower case has another length (some letters do) has none.
    """
    lowered = text.lower().replace("\u2019", "'")
    if len(lowered) != len(text):
        return []
    places = [found.span() for found in TOKEN.finditer(lowered)]
    found: list[Piece] = []
    parts = units(text)
    at = 0
    for unit, role in zip(parts, roles(parts), strict=True):
        last = at + unit.text.count(" ")
        if role is Role.NOUN and found and found[-1].head:
            found[-1] = Piece(found[-1].unit, Role.NOUN, found[-1].start, found[-1].end)
        noun = role is Role.NOUN and unit.noun is not None
        found.append(Piece(unit, role, places[at][0], places[last][1], noun))
        at = last + 1
    return found


@dataclass(frozen=True)
class Backing:
    """What others state, as they state it."""

    objects: frozenset[str]
    attributes: frozenset[tuple[str, str]]
    verbs: frozenset[str]  # of their relations and of their attributes that are actions
    absent: frozenset[str] = frozenset()  # objects that the detector knows and does not suspect

    @classmethod
    def of(cls, decision: Decision) -> Backing:
        """What the proposals state together, and what the detector sees."""
        stated = [extract(voice.text) for voice in voices(decision)]
        sight = decision.sight
        if sight is not None:
            stated.append(Facts(sight.seen, frozenset(), frozenset()))
        attributes = frozenset(pair for facts in stated for pair in facts.attributes)
        acts = {name for facts in stated for _, name, _ in facts.relations}
        return cls(
            frozenset(name for facts in stated for name in facts.objects),
            attributes,
            frozenset(acts | {name for _, name in attributes}),
            sight.absent if sight is not None else frozenset(),
        )

    def object(self, name: str) -> bool:
        """Whether others name it, a kind of it, or what it is a kind of.

        A photo's own text may be more exact than a teacher can be (a retriever, where all say
        dog). A role (a doctor) is backed by any person; what one sees at a glance (a woman) is not.
        """
        if name in self.absent:
            return False
        known = lexicon().objects
        if any(known.related(one, name) for one in self.objects):
            return True
        role = known.entails(name, "person") and name not in LITERAL
        return role and any(known.entails(one, "person") for one in self.objects)

    def attribute(self, owner: str | None, name: str) -> bool:
        """Whether others say it, or more, of this object; of any object where there is none."""
        known = lexicon()
        return any(
            known.attributes.entails(stated, name)
            and (owner is None or known.objects.related(owner, other))
            for other, stated in self.attributes
        )

    def verb(self, name: str) -> bool:
        """Whether others see anybody do it."""
        return name in self.verbs


@dataclass(frozen=True)
class Pruned:
    """What is left of a text, and the words that went; no text where too little is left."""

    text: str
    gone: tuple[str, ...]


def prune(text: str, backing: Backing) -> Pruned:
    """The text without what nothing supports; as it is where everything is supported."""
    found = pieces(text)
    kept: list[int] = []
    for sentence in _sentences(found):
        kept += _kept(found, sentence, backing)
    dropped = [at for at in range(len(found)) if at not in set(kept)]
    gone = tuple(found[at].unit.text for at in dropped if found[at].role not in _GLUE)
    left = text if found and not gone else _joined(text, found, kept)
    facts = extract(left)
    stated = len(facts.objects) + len(facts.attributes) + len(facts.relations)
    enough = len(left.split()) >= FEWEST_WORDS and stated >= FEWEST_FACTS
    # what was cut may have been read otherwise together with what is left
    backed = all(backing.object(name) for name in facts.objects)
    once = not gone or not _names_twice(left)  # "a chair on the chair", of a pillow that went
    return Pruned(left if enough and backed and once else "", gone)


def with_article(text: str) -> str:
    """The text with `a` and `an` as the words behind them ask for."""

    def article(found: re.Match[str]) -> str:
        first, space, letter = found.groups()
        return first[0] + ("n" if letter in "aeioAEIO" else "") + space + letter

    return re.sub(r"\b([Aa]n?)(\s+)([A-Za-z])", article, text)


def _names_twice(text: str) -> bool:
    heads = [piece.unit.noun for piece in pieces(text) if piece.head]
    return len(set(heads)) < len(heads)


def _sentences(found: Sequence[Piece]) -> list[list[list[int]]]:
    """Chunks as lists of places, by sentence."""
    sentences: list[list[list[int]]] = [[[]]]
    for at, piece in enumerate(found):
        chunk = sentences[-1][-1]
        if piece.role is Role.STOP:
            sentences.append([[]])
        else:
            glued = all(found[one].role in _GLUE for one in chunk)
            listed = (
                piece.role in (Role.AND, Role.COMMA) and at and found[at - 1].role in _MODIFIERS
            )
            if piece.role in _CUTS and not glued and not listed:
                sentences[-1].append([])
            sentences[-1][-1].append(at)
    return [[chunk for chunk in sentence if chunk] for sentence in sentences if sentence[0]]


def _kept(found: Sequence[Piece], sentence: list[list[int]], backing: Backing) -> list[int]:
    """Places of what stays of a sentence; none where its subject is not backed."""
    answers = [_backed([(at, found[at]) for at in chunk], backing) for chunk in sentence]
    first = 0
    if not answers[0] and len(sentence) > 1 and found[sentence[1][0]].unit.text == "of":
        first = 1  # "a picture of a dog" is about a dog
        answers[1] = [at for at in answers[1] if at != sentence[1][0]]
    if not any(found[at].head for at in answers[first]):
        return []
    kept = list(answers[first])
    gone: list[int] = []  # what went since the last chunk that stayed
    for chunk, answer in zip(sentence[first + 1 :], answers[first + 1 :], strict=True):
        if gone and _hangs(found, chunk, gone):
            gone += chunk
        else:
            kept += answer
            gone = [] if answer else [*chunk]
    return kept


def _hangs(found: Sequence[Piece], chunk: Sequence[int], gone: Sequence[int]) -> bool:
    """Whether a chunk may belong to the one before it that went, so that it has to go as well.

    What tells of a noun ("who sits", "riding a horse") hangs on who might do it; where and with
    what ("from a customer") on a verb; one more ("and a tie") on either.
    """
    first, before = found[chunk[0]], found[gone[0]]
    if first.unit.text == "of":
        return True
    if first.role in (Role.AND, Role.COMMA):
        acts = any(found[at].role is Role.VERB for at in chunk)
        return not acts and before.role in (Role.PREPOSITION, Role.VERB, Role.BE)
    if first.role is Role.PREPOSITION:
        return any(found[at].role is Role.VERB for at in gone)
    names = [found[at].unit.noun for at in gone if found[at].head]
    return any(name and is_kind(name, *ACTORS) for name in names)


def _backed(chunk: list[tuple[int, Piece]], backing: Backing) -> list[int]:
    """Places of what stays of a chunk; none where it goes as a whole."""
    nouns = [piece for _, piece in chunk if piece.role is Role.NOUN]
    heads = [piece.unit.noun or "" for piece in nouns if piece.head]
    if not all(backing.object(name) for name in heads):
        return []
    if not all(backing.verb(p.unit.verb or "") for _, p in chunk if p.role is Role.VERB):
        return []
    owner = heads[-1] if heads else None
    gone = {at for at, piece in chunk if not _stays(piece, owner, backing)}
    roles = {piece.role for _, piece in chunk}
    if (gone and Role.POSSESSIVE in roles) or Role.NEGATION in roles:
        return []
    modifying = [at for at, p in chunk if p.role in (*_MODIFIERS, Role.AND, Role.COMMA)]
    inside = [at for at in modifying if at > min(modifying) or chunk[0][0] != at]
    if gone & set(inside) and any(
        p.role in (Role.AND, Role.COMMA) for at, p in chunk if at in inside
    ):
        gone |= {at for at in inside if at != chunk[0][0]}  # of "black and white", both or none
    gone |= {at for at, piece in chunk if piece.unit.text in _DEGREES and at + 1 in gone}
    left = [(at, piece) for at, piece in chunk if at not in gone]
    if gone and left and left[-1][1].role is Role.DETERMINER:
        return []  # "doing a", of a trick that went
    open_phrase = {Role.DETERMINER, Role.PREPOSITION} & {piece.role for _, piece in left}
    if gone and open_phrase and not heads:
        return []  # "in Texas", "a gizmo"
    content = (Role.NOUN, Role.VERB, *_MODIFIERS)
    if not any(piece.role in content for _, piece in left) and (gone or not open_phrase):
        return []
    return [at for at, _ in left]


def _stays(piece: Piece, owner: str | None, backing: Backing) -> bool:
    unit = piece.unit
    if piece.unknown:
        return False
    if piece.role is Role.ADJECTIVE:
        return backing.attribute(owner, unit.attribute or "")
    if piece.role is Role.PARTICIPLE:
        return backing.verb(unit.verb or "") or backing.attribute(owner, unit.verb or "")
    return piece.role is not Role.NOUN or backing.object(unit.noun or "")


def _joined(text: str, found: Sequence[Piece], kept: Sequence[int]) -> str:
    """The kept pieces as a text: as it was between neighbours, a space where something went."""
    written = ""
    last = -2
    for at in kept:
        gap = text[found[at - 1].end : found[at].start] if at == last + 1 else " "
        if not written or found[at].role is Role.COMMA:
            gap = ""
        written += gap + text[found[at].start : found[at].end]
        last = at
    words = re.sub(r"[\"()\[\]]", " ", written)
    words = re.sub(
        r"^(?:[\s,]|\b(?:and|or|but|while|as)\b)+|(?:[\s,]|\b(?:and|or|but|is|are)\b)+$", "", words
    )
    words = with_article(" ".join(words.split()))
    return words[:1].upper() + words[1:] if text[:1].isupper() else words
