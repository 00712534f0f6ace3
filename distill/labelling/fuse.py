"""Stage 3: the text that a photo came with, fused with what the teachers see.

After CapsFusion (Yu et al. 2023) and FuseCap (Rotstein et al. 2023), without their language model:
web text knows names, captions know what is there. By rules over facts, whatever is written stands
in one of the two and is supported by the other.
"""

from __future__ import annotations

from dataclasses import replace

from nanocap.distill.labelling.backing import Backing
from nanocap.distill.labelling.decision import FUSED, ORIGINAL, Candidate, Decision
from nanocap.distill.labelling.fusion import name
from nanocap.distill.labelling.lengths import TOO_LONG, shortened, whole_sentences
from nanocap.distill.labelling.proposals import distinct
from nanocap.distill.labelling.text_support import prune

MOST_ORIGINALS = 5  # texts of one photo that are looked at


def fuse(decision: Decision) -> Decision:
    """The decision with up to two more kinds of candidates, before those of the teachers.

    The sentence with most agreement, its nouns as exact as the photo's own text has them; and each
    of the photo's own texts, less what nothing supports. One of which too little is left is
    dropped. Teachers come last, so that of two in the same words the photo's own is kept.
    """
    if not decision.originals or not decision.kept:
        return decision
    backing = Backing.of(decision)
    originals = [whole_sentences(text) for text in decision.originals[:MOST_ORIGINALS]]
    own = [
        _own(text, cut, backing) for text, cut in zip(decision.originals, originals, strict=False)
    ]
    base = max(decision.kept, key=lambda one: one.agreement or 0.0)
    named = name(base.text, [text for text in originals if text], backing)
    if named is not None:
        own.insert(0, replace(base, text=named.text, origin=FUSED, notes=named.notes))
    return distinct(replace(decision, candidates=(*own, *decision.candidates)))


def _own(text: str, cut: str, backing: Backing) -> Candidate:
    if not cut:
        return Candidate(shortened(text), ORIGINAL, dropped=TOO_LONG)
    pruned = prune(cut, backing)
    gone = f"nothing supports: {', '.join(pruned.gone)}" if pruned.gone else ""
    if not pruned.text:
        return Candidate(cut, ORIGINAL, dropped=gone or "states too little")
    if pruned.text == cut:
        return Candidate(cut, ORIGINAL)
    return Candidate(pruned.text, FUSED, notes=(gone,))
