"""What `nanocap bench` measures: times, memory, and how near they come to the machine's limits.

- `options`: what to measure, and how much
- `machine`, `photos`: where it is measured, and on what
- `timing`: tasks in turns, and what their samples say
- `stages`: the tasks of one artifact at one number of threads
- `peaks`: what the machine itself can do: matrix products and memory copies
- `graphs`, `operators`, `counts`: multiply-adds and bytes of a graph
- `roofline`: the counts over the peaks
- `profile`: where the time goes, by operator
- `memory`, `child`: peak memory of a new process, and what that process does
- `run`: all of it, once
- `results`, `report`: what it found, and that as a table and as JSON
"""
