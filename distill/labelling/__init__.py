"""Photos labelled by teachers: captions proposed, fused, ranked, verified, graded and logged.

Reading order: `decision` (the record that grows from stage to stage), then the stages in
`proposals`, `fusion` (on `text_support`), `evidence`, `quality` and `adaptation`. A `panel` holds
who speaks, a `plan` what about; `photos` reads that, `shards` keep what was done, `engine` runs it
all in one process, `ray` on many machines.
"""

from nanocap.distill.labelling.engine import label
from nanocap.distill.labelling.panel import Panel
from nanocap.distill.labelling.plan import Labelled, Options, Task

__all__ = ["Labelled", "Options", "Panel", "Task", "label"]
