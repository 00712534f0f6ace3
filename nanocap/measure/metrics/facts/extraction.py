"""Facts of a sentence: a parser of rules over the roles of its words, in one pass.

The subject of a clause is its first noun; verbs and prepositions attach to it, "of" to the noun
before it. (Attaching every preposition to the noun before it was tried: of the relations in one
caption of a Flickr8k photo, the other four then hold 32.0 %, with the subject 34.4 %.) "in" and
"with" before clothing mean "wear". A verb without an object, and a participle before its noun ("a
running dog"), is an attribute, as in SPICE (Anderson et al., 2016).

Measured on the 6,086 training photos of Flickr8k, the first caption against the other four:
precision and recall are 75.9 and 57.4 % for objects, 47.4 and 24.8 % for attributes, 34.6 and
17.0 % for relations; against the captions of another photo, 12.4 and 13.6, 2.3 and 1.1, 0.6 and
0.3 %. Some 10,000 sentences a second on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nanocap.measure.metrics.facts.entries import lexicon
from nanocap.measure.metrics.facts.roles import Role, roles
from nanocap.measure.metrics.facts.words import Unit, units


@dataclass(frozen=True)
class Facts:
    """What a text states, by the names of the lexicon's sets."""

    objects: frozenset[str]
    attributes: frozenset[tuple[str, str]]  # of an object: colour, size, number, material, action
    relations: frozenset[tuple[str, str, str]]  # subject, verb or preposition, object


def extract(text: str) -> Facts:
    """The facts of a caption, or of any text; words that the lexicon lacks state nothing.

    The same text gives the same facts; the time is linear in the text's length.

    Raises:
        MissingExtraError: `simplemma` is not installed.
    """
    words = units(text)
    parser = _Parser(words, roles(words))
    return parser.facts()


@dataclass(frozen=True)
class _Relation:
    """A verb or preposition that waits for its object."""

    name: str
    subjects: tuple[str, ...]
    is_verb: bool = False
    passive: bool = False


@dataclass
class _Parser:
    words: Sequence[Unit]
    parts: Sequence[Role]
    objects: set[str] = field(default_factory=set)
    attributes: set[tuple[str, str]] = field(default_factory=set)
    relations: set[tuple[str, str, str]] = field(default_factory=set)
    subjects: tuple[str, ...] = ()  # of the clause
    acted: bool = False  # the clause has its verb
    nearest: str | None = None  # the noun last seen
    pending: _Relation | None = None
    joined: _Relation | None = None  # the relation whose object was seen last, for "and"
    modifiers: list[str] = field(default_factory=list)  # adjectives that wait for their noun
    owner: str | None = None
    negated: bool = False
    opening: Role = Role.STOP  # what stands before the noun phrase that is being read
    before: Role = Role.STOP  # what stands before the unit, OTHER left out

    def facts(self) -> Facts:
        for at, (unit, role) in enumerate(zip(self.words, self.parts, strict=True)):
            self._read(unit, role, self._role(at + 1), self._text(at + 1))
            if role is not Role.OTHER:
                self.before = role
        self._flush()
        return Facts(frozenset(self.objects), frozenset(self.attributes), frozenset(self.relations))

    def _read(self, unit: Unit, role: Role, following: Role, next_text: str) -> None:
        if role is Role.NOUN and unit.noun:
            self._noun(unit.noun, unit.text, following)
        elif role is Role.ADJECTIVE and unit.attribute:
            self._adjective(unit.attribute, following, floating=" " in unit.text)
        elif role is Role.PARTICIPLE and unit.verb:
            self.modifiers.append(unit.verb)
        elif role is Role.VERB and unit.verb:
            self._verb(unit, unit.verb, next_text)
        elif role is Role.PREPOSITION:
            self._preposition(unit)
        elif role is Role.NEGATION:
            self.negated = True
        elif role is Role.OTHER:
            self._unknown(following)
        elif role in (Role.AND, Role.COMMA) and self.modifiers and following is Role.ADJECTIVE:
            pass  # "a brown and white dog" goes on
        elif role in (Role.AND, Role.COMMA, Role.WHILE, Role.PRONOUN, Role.STOP):
            self._flush()
            self.opening = role
            if role in (Role.WHILE, Role.STOP):
                self.joined = None
            if role is Role.STOP:
                self.subjects, self.nearest, self.acted = (), None, False

    def _noun(self, name: str, text: str, following: Role) -> None:
        ends = following is not Role.NOUN
        if self.negated:
            if ends:
                self.negated, self.pending = False, None
                self.modifiers.clear()
            return
        # A noun before a noun is in the picture as well: "a kitchen table".
        self.objects.add(name)
        own = ends or text.endswith("ed")  # "black haired" tells the colour of the hair
        if own:
            self.attributes.update((name, modifier) for modifier in self.modifiers)
            self.modifiers.clear()
        if not ends:
            return
        if self.owner is not None:
            self._relate(_Relation("with", (self.owner,)), name)
            self.owner = None
        if following is Role.POSSESSIVE:
            self.owner = name
            return
        self._place(name, opens=following in (Role.VERB, Role.BE) and is_kind(name, *ACTORS))
        self.nearest = name
        self.opening = Role.NOUN

    def _place(self, name: str, *, opens: bool) -> None:
        """Give a finished noun phrase its part: object, subject, or one more of either."""
        conjoined = self.opening in (Role.AND, Role.COMMA) and bool(self.subjects)
        joined = self.joined if conjoined else None
        if joined is not None and not joined.is_verb and not opens:
            # "a man in a hat and a woman in a dress", but "a man with a dog and a cat"
            opens = is_kind(name, *ACTORS) and not is_kind(self.nearest or name, *ACTORS)
        if self.pending is not None:
            if self.pending.subjects:
                self._relate(self.pending, name)
                self.joined = self.pending if self.pending.name != "of" else None
            elif not self.subjects:
                self.subjects = (name,)  # "a picture of a dog" is about a dog
            self.pending = None
        elif conjoined and not self.acted and (joined is None or opens):
            if name not in self.subjects and len(self.subjects) < _MOST_SUBJECTS:
                self.subjects += (name,)
        elif joined is not None and not opens:
            self._relate(joined, name)
        elif opens or not self.subjects or not self.acted:
            self.subjects, self.acted, self.joined = (name,), False, None

    def _adjective(self, attribute: str, following: Role, *, floating: bool) -> None:
        """Keep it for its noun, or give it to the noun before it or to the subject.

        `floating`: a phrase such as "in midair" tells of the subject wherever it stands.
        """
        self.modifiers.append(attribute)
        if following in (Role.NOUN, Role.ADJECTIVE, Role.PARTICIPLE):
            return
        if following in (Role.AND, Role.COMMA, Role.OTHER) and self.before in _IN_PHRASE:
            return
        if self.before is Role.NOUN and self.nearest is not None and not floating:
            self._describe((self.nearest,))
        elif self.before not in _IN_PHRASE:
            self._describe(self.subjects)
        else:
            self.modifiers.clear()  # "the old": who that is remains open

    def _describe(self, names: Sequence[str]) -> None:
        """Give the waiting adjectives to nouns; a bare number ("one is red") tells nothing."""
        kinds = lexicon().attributes
        self.attributes.update(
            (name, modifier)
            for name in names
            for modifier in self.modifiers
            if not kinds.entails(modifier, "count")
        )
        self.modifiers.clear()

    def _verb(self, unit: Unit, verb: str, next_text: str) -> None:
        self._flush()
        subjects = self.subjects = self._actors()
        passive = unit.form == "ed" and (self.before is Role.BE or next_text == "by")
        self.acted = True
        self.opening = Role.VERB
        self.joined = None
        self.pending = _Relation(verb, subjects, is_verb=True, passive=passive)

    def _actors(self) -> tuple[str, ...]:
        """Who does what the verb says: the clause's subject, or the noun just before the verb.

        "a man in a shirt riding": the man; "a man watches a dog running": the dog.
        """
        direct = self.before in (Role.NOUN, Role.WHO) and self.nearest is not None
        if direct and self.nearest is not None and (self.acted or self.before is Role.WHO):
            inanimate = self.subjects and not is_kind(self.subjects[0], *ACTORS)
            if is_kind(self.nearest, *ACTORS) or inanimate:
                return (self.nearest,)
        return self.subjects or ((self.nearest,) if self.nearest is not None else ())

    def _preposition(self, unit: Unit) -> None:
        name = unit.preposition or "to"
        waiting = self.pending
        if waiting is not None and waiting.passive and unit.text == "by":
            self.opening = Role.PREPOSITION
            return  # "thrown by": the verb waits for who does it
        self._flush()
        subjects = self.subjects
        if self.before is Role.NOUN and self.nearest is not None and self._clings(name):
            subjects = (self.nearest,)
        self.opening = Role.PREPOSITION
        self.pending = _Relation(name, subjects)

    def _clings(self, preposition: str) -> bool:
        """Whether a preposition belongs to the noun before it, not to the clause's subject."""
        if preposition == "of":
            return True
        return (
            preposition == "with"
            and self.nearest is not None
            and not is_kind(self.nearest, *ACTORS)
        )

    def _unknown(self, following: Role) -> None:
        """A word of no meaning to us may have been the object that something waited for."""
        ends = following not in (Role.NOUN, Role.ADJECTIVE, Role.OTHER, Role.PARTICIPLE)
        if ends and self.before in (*_IN_PHRASE, Role.PREPOSITION):
            self.negated = False
            self.modifiers.clear()
            if following is not Role.PREPOSITION or self.before is not Role.PREPOSITION:
                self._flush()

    def _flush(self) -> None:
        """Nothing more will come for what waits: a verb alone is what its subject does."""
        waiting = self.pending
        if waiting is not None and waiting.is_verb:
            self.attributes.update((subject, waiting.name) for subject in waiting.subjects)
        self.pending = None
        self.modifiers.clear()

    def _relate(self, relation: _Relation, name: str) -> None:
        for subject in relation.subjects:
            if relation.passive:
                self.relations.add((name, relation.name, subject))
            elif relation.name in ("in", "with") and is_kind(name, "clothing"):
                near = self.nearest
                wearer = near if near is not None and is_kind(near, "person", "animal") else subject
                self.relations.add((wearer, "wear", name))
            else:
                self.relations.add((subject, relation.name, name))

    def _role(self, at: int) -> Role:
        return self.parts[at] if at < len(self.parts) else Role.STOP

    def _text(self, at: int) -> str:
        return self.words[at].text if at < len(self.words) else ""


_MOST_SUBJECTS = 8  # of one clause: bounds the time that a list of thousands takes
ACTORS = ("person", "animal", "vehicle")
_IN_PHRASE = (Role.DETERMINER, Role.ADJECTIVE, Role.PARTICIPLE, Role.NEGATION, Role.POSSESSIVE)


def is_kind(name: str, *kinds: str) -> bool:
    """Whether an object is of one of the kinds."""
    return any(lexicon().objects.entails(name, kind) for kind in kinds)
