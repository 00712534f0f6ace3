"""Which part a unit plays in its sentence, decided by its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from nanocap.measure.metrics.facts.words import Unit

Role = Enum(
    "Role",
    "NOUN ADJECTIVE PARTICIPLE VERB PREPOSITION DETERMINER NEGATION BE TO WHO PRONOUN AND WHILE"
    " POSSESSIVE COMMA STOP OTHER",
)

FUNCTION: dict[str, Role] = {
    text: role
    for role, texts in {
        Role.DETERMINER: "a an the his her their my your our these those this each every another",
        Role.NEGATION: "no without",
        Role.BE: "is are was were be been being am get gets getting got",
        Role.TO: "to",
        Role.WHO: "who which that",
        Role.PRONOUN: "he she they it him them himself herself themselves itself there we you i",
        Role.AND: "and or but then",
        Role.WHILE: "while as whilst whist when where because",
        Role.COMMA: ",",
        Role.STOP: ". ; ! ? :",
        # Verbs that lend their subject to the verb behind them, and words that change no fact.
        Role.OTHER: "begin begins beginning start starts starting try tries trying tried attempt"
        " attempts attempting prepare prepares preparing continue continues do does doing can will"
        " could may might would go goes going not other its own very so too also just all",
    }.items()
    for text in texts.split()
}
FUNCTION["its"] = Role.DETERMINER
_SLOT = (Role.DETERMINER, Role.NEGATION, Role.ADJECTIVE, Role.PARTICIPLE, Role.POSSESSIVE)
_OPENS = (Role.STOP, Role.AND, Role.WHILE, Role.COMMA)


def roles(units: Sequence[Unit]) -> list[Role]:
    """The role of each unit. A unit of no known word is OTHER."""
    found: list[Role] = []
    last, plural = Role.STOP, False  # OTHER does not count: "is slowly walking"
    for at, unit in enumerate(units):
        following = units[at + 1] if at + 1 < len(units) else None
        role = _role(unit, last, plural, following)
        found.append(role)
        if role is not Role.OTHER:
            last = role
        plural = unit.plural and role is Role.NOUN
    return found


def _role(unit: Unit, last: Role, plural: bool, following: Unit | None) -> Role:
    function = FUNCTION.get(unit.text)
    if unit.text == "'s":
        return Role.BE if last is Role.PRONOUN or _verbal(following) else Role.POSSESSIVE
    if function is Role.WHO and _nominal(following):
        return Role.DETERMINER
    if function is Role.TO:
        infinitive = following is not None and following.verb and following.form == "base"
        return Role.TO if infinitive else Role.PREPOSITION
    if function is not None:
        # "a can", but "one can see"; "get off" came here as a phrase already
        return Role.NOUN if unit.noun and last in _SLOT else function
    if unit.preposition and not (unit.noun and last in _SLOT):
        if unit.attribute and not _begins_phrase(following):
            return Role.ADJECTIVE
        return Role.PREPOSITION
    if unit.attribute and (not unit.noun or _modifies(last, following)):
        return _attribute_or_verb(unit, last, following)
    if unit.verb and (not unit.noun or _acts(unit, last, plural, following)):
        before_noun = last in _SLOT or (last in _OPENS and unit.form == "ing")
        if before_noun and unit.form in ("ing", "ed") and _nominal(following):
            return Role.PARTICIPLE
        return Role.VERB
    return Role.NOUN if unit.noun else Role.OTHER


def _attribute_or_verb(unit: Unit, last: Role, following: Unit | None) -> Role:
    """ "parked cars" and "is parked", but "parks the car" and "a dog floating past"."""
    if not unit.verb or last in _SLOT:
        return Role.ADJECTIVE
    if last is Role.TO:
        return Role.VERB
    object_follows = following is not None and FUNCTION.get(following.text) is Role.DETERMINER
    if unit.form in ("ing", "s") or object_follows:
        return Role.VERB
    return Role.ADJECTIVE


def _modifies(last: Role, following: Unit | None) -> bool:
    """Whether a word that is a noun and an adjective (orange, brick) is the adjective here."""
    if _nominal(following) and not _verbal(following):
        return True
    return last is Role.BE


def _acts(unit: Unit, last: Role, plural: bool, following: Unit | None) -> bool:
    """Whether a word that is a noun and a verb (swing, fish, watch) is the verb here."""
    if last in _SLOT or last is Role.PREPOSITION:
        return False
    if last in (Role.TO, Role.WHO, Role.PRONOUN):
        return True
    if last is Role.BE:
        return unit.form in ("ing", "ed")
    if unit.form == "base":
        return last is Role.NOUN and plural
    return last is Role.NOUN or (last in _OPENS and _begins_phrase(following))


def _nominal(unit: Unit | None) -> bool:
    return unit is not None and bool(unit.noun or unit.attribute) and unit.text not in FUNCTION


def _verbal(unit: Unit | None) -> bool:
    return unit is not None and unit.verb is not None and unit.form in ("ing", "s")


def _begins_phrase(unit: Unit | None) -> bool:
    if unit is None:
        return False
    return FUNCTION.get(unit.text) is Role.DETERMINER or bool(unit.noun or unit.attribute)
