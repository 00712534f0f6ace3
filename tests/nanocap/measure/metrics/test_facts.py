"""Facts of sentences written for these tests: what each states, and nothing else.

The facts of a row are written as words: `dog` for an object (those in the other columns need not
be repeated), `dog brown` for an attribute, `dog on sofa` (with `/` for spaces) for a relation.
"""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nanocap.measure.metrics.facts import Facts, extract

SENTENCES = [
    ("A small brown dog runs through the grass.",
     "dog small, dog brown, dog run", "dog through grass"),
    ("The dog is brown.", "dog brown", ""),
    ("The boats are docked.", "boat docked", ""),
    ("A man in a red shirt is riding a horse on the beach.",
     "shirt red", "man wear shirt, man ride horse, man on beach"),
    ("A woman wearing a blue hat and sunglasses holds an umbrella.",
     "hat blue", "woman wear hat, woman wear sunglasses, woman hold umbrella"),
    ("A man in a hat and a woman in a red dress dance.",
     "dress red, man dance, woman dance", "man wear hat, woman wear dress"),
    ("Two children are playing soccer in a park.",
     "child two", "child play soccer, child in park"),
    ("A group of people standing in front of a lighthouse.",
     "person many, person stand", "person in/front/of lighthouse"),
    ("A man and a woman sit on a wooden bench.",
     "bench wooden, man sit, woman sit", "man on bench, woman on bench"),
    ("A black and white cat sleeping on a couch next to a laptop.",
     "cat black/and/white, cat sleep", "cat on couch, cat near computer"),
    ("A brown and white dog is lying on the floor.",
     "dog brown, dog white, dog lie", "dog on floor"),
    ("A ball thrown by a boy.", "", "boy throw ball"),
    ("A child is held by her mother.", "", "mother hold child"),
    ("A picture of a dog jumping over a fire hydrant.",
     "dog jump", "dog over fire/hydrant"),
    ("A black-haired girl with a ponytail smiles.",
     "hair black, girl smile", "girl with ponytail"),
    ("A shirtless man with no hat stands near a parked car.",
     "man shirtless, man stand, car parked", "man near car"),
    ("A woman without a coat walks in the rain.", "woman walk", "woman in rain"),
    ("A boy rides a skateboard while another man watches.",
     "man watch", "boy ride skateboard"),
    ("An orange cat eats an orange.", "cat orange", "cat eat orange"),
    ("A man holds a surfboard and a woman holds a camera.",
     "", "man hold surfboard, woman hold camera"),
    ("A man watches a dog running in the snow.",
     "dog run", "man watch dog, dog in snow"),
    ("The man's jacket is green.", "jacket green", "man wear jacket"),
    ("A dog has a ball.", "", "dog with ball"),
    ("Kids swing on swings.", "child swing", "child on swing"),
    ("A man fishes while a fish swims.", "man fish, fish swim", ""),
    ("A dog jumps to catch a frisbee.", "dog jump", "dog catch frisbee"),
    ("Smiling woman in front of traffic light.",
     "woman smile", "woman in/front/of traffic/light"),
    ("There are three zebras grazing in a field.",
     "zebra three, zebra graze", "zebra in field"),
    ("The bus, which is yellow, is parked near a school.",
     "bus yellow, bus parked", "bus near school"),
    ("A table topped with plates of food.", "", "table with plate, plate of food"),
    ("Three women are talking while sitting at a table.",
     "woman three, woman speak, woman sit", "woman at table"),
    ("A couple of birds sit on a wire.", "bird two, bird sit", "bird on cable"),
    ("A girl brushes her teeth.", "", "girl brush tooth"),
    ("The men ran down the streets.", "man run", "man along street"),
    ("A kitchen with a stove, a sink and a white refrigerator.",
     "refrigerator white",
     "kitchen with stove, kitchen with sink, kitchen with refrigerator"),
    ("The front of the photo, a view of the background.", "", ""),
]  # fmt: skip


def facts(attributes: str, relations: str) -> Facts:
    def split(text: str) -> list[tuple[str, ...]]:
        rows = [row.split() for row in text.split(",") if row.strip()]
        return [tuple(word.replace("/", " ") for word in row) for row in rows]

    pairs = {(one, two) for one, two in split(attributes)}
    triples = {(one, two, three) for one, two, three in split(relations)}
    objects = {name for name, _ in pairs} | {n for one, _, two in triples for n in (one, two)}
    return Facts(frozenset(objects), frozenset(pairs), frozenset(triples))


@pytest.mark.parametrize(("text", "attributes", "relations"), SENTENCES)
def test_facts(text: str, attributes: str, relations: str) -> None:
    found, wanted = extract(text), facts(attributes, relations)
    assert found.attributes == wanted.attributes
    assert found.relations == wanted.relations
    assert wanted.objects <= found.objects


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("A hot dog and an ice cream cone on a tennis court", {"hot dog", "ice cream", "court"}),
        ("Geese, sheep, mice and knives", {"goose", "sheep", "mouse", "knife"}),
        ("Puppies and kittens", {"dog", "cat"}),
        ("A kitchen table", {"kitchen", "table"}),
        ("A T-shirt, a t shirt and a tee-shirt", {"shirt"}),
        ("a man with no beard", {"man"}),
        ("two of several kinds of things in the middle of the day", {"thing"}),
        ("", set()),
        ("犬が芝生を走る。 Собака бежит.", set()),
    ],
)
def test_objects(text: str, objects: set[str]) -> None:
    assert extract(text).objects == objects


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A puppy is running on the grass", "A DOG RUNS ON GRASS!"),
        ("A lady rides a bike", "The woman is riding a bicycle."),
        ("A guy beside a sofa", "a man next to a couch"),
        ("Two kids in large hats", "2 children wearing big hats"),
        ("A girl\u2019s shoe", "a girl's shoe"),
    ],
)
def test_the_same_said_in_other_words(one: str, other: str) -> None:
    assert extract(one) == extract(other)


WORDS = (
    "a the man dogs in of and , . with no is red orange swing riding parked who 's to by".split()
)


@given(st.text(max_size=300) | st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join))
@example("'s 's 's")
@example(string.printable)
def test_any_text_has_facts_that_fit_together(text: str) -> None:
    found = extract(text)
    assert {name for name, _ in found.attributes} <= found.objects
    assert {name for one, _, two in found.relations for name in (one, two)} <= found.objects
    assert extract(text) == found
