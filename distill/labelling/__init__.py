"""Photos labelled by teachers: captions proposed, fused, ranked, verified, graded and logged.

Reading order: `decision` (the record that grows from stage to stage), then the stages `propose`,
`agree`, `fuse`, `match`, `rank`, `verify`, `levels`, each in its own file. A `panel` holds who
speaks, a `task` what about; `photos` reads that, `shards` and `plan` keep what was done, `engine`
runs it all in one process, `ray` on many machines, from an `order`.
"""

from nanocap.distill.labelling.engine import label
from nanocap.distill.labelling.options import Options
from nanocap.distill.labelling.panel import Panel
from nanocap.distill.labelling.task import Labelled, Task

__all__ = ["Labelled", "Options", "Panel", "Task", "label"]
