"""The arrays of jobs that an experiment is cut into, in the order of submission, and what each waits for.

    sweep -> the same again, for tasks whose job died -> select, which refuses when runs are missing
          -> retrain (and again) -> measure (and again) -> figures -> report

Passes over a stage wait for the end of the pass before, however it ended; what comes after `select` also waits for its
success, and is cancelled by SLURM when it fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from repro.pipeline import tasks
from repro.pipeline.config import Launch
from repro.pipeline.tasks import COMPUTED, Stages, Task


class Array(NamedTuple):
    """One call of sbatch: jobs of one stage, and the arrays that it waits for (by position in the chain)."""

    stage: str
    attempt: int  # 0 is the first pass
    chunks: list[list[Task]]  # the tasks of each job
    after_end: list[int]
    after_success: list[int]

    def dependency(self, ids: Sequence[str]) -> str | None:
        """In sbatch's words, given the ids of the arrays before."""
        kinds = (("afterok", self.after_success), ("afterany", self.after_end))
        return ",".join(":".join([kind, *(ids[i] for i in of)]) for kind, of in kinds if of) or None

    def describe(self, ids: Sequence[str], name: str) -> str:
        """One line for people."""
        count = sum(len(chunk) for chunk in self.chunks)
        again = f", pass {self.attempt + 1}" if self.attempt else ""
        waits = self.dependency(ids)
        line = f"{name:>8}  {self.stage}{again}: {count} tasks in {len(self.chunks)} jobs"
        return f"{line}, {waits}" if waits else line


def unfinished(stages: Stages) -> dict[str, list[Task]]:
    """What is left to do. Select, figures and report are made anew whenever they are asked for."""
    return {stage: tasks.unfinished(of) if stage in COMPUTED else list(of) for stage, of in stages.items()}


def chain(stages: Stages, launch: Launch, array_size: int) -> list[Array]:
    """The arrays of unfinished tasks; none has more than `array_size` jobs. `launch` is conf/launch/slurm.yaml."""
    arrays: list[Array] = []
    before: list[int] = []
    gate: list[int] = []
    for stage, left in unfinished(stages).items():
        each = launch.tasks_per_job(stage) or max(len(left), 1)
        chunks = [left[i : i + each] for i in range(0, len(left), each)]
        if not chunks:
            continue
        for attempt in range(1 + launch.retries if stage in COMPUTED else 1):
            first = len(arrays)
            for i in range(0, len(chunks), array_size):
                arrays.append(Array(stage, attempt, chunks[i : i + array_size], before, gate))
            before = list(range(first, len(arrays)))
        if stage == "select":
            gate, before = before, []
    return arrays
