"""Watching a measurement: its progress, a stop that keeps what was found, and checkpoints that take it up again.

All a measurement spends much time on is products with matrices. `LanczosSettings.estimate` and its like hand theirs to
the watch that is `current()`, which counts and times them, refuses the next one when it is time to stop, and keeps them
on disk. No algorithm knows more of it than `repro.linalg.operator.Stopped`.
"""

from repro.watch.checkpoint import Checkpoint, ForeignCheckpointError
from repro.watch.watch import Progress, Watch, current, interruptible, watching

__all__ = ["Checkpoint", "ForeignCheckpointError", "Progress", "Watch", "current", "interruptible", "watching"]
