"""Photos labelled by teachers: captions proposed, fused, ranked, verified, graded and logged.

Reading order: `decision` (the record that grows from stage to stage), then the stages `propose`,
`agree`, `fuse`, `match`, `rank`, `verify`, `levels`, each in its own file; `photos` reads what is
labelled, `shards` and `plan` keep what was done, `engine` runs it all in one process, `ray` on many
machines, from an `order`.
"""

from nanocap.distill.labelling.engine import Evidence, Labelled, label
from nanocap.distill.labelling.options import Options

__all__ = ["Evidence", "Labelled", "Options", "label"]
