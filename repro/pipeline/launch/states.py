"""The state of every task of an experiment on SLURM: by its files, by what was submitted, and by the queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from repro.pipeline.launch.attempts import Attempt, attempts_folder, read_attempt
from repro.pipeline.launch.queue import Job
from repro.pipeline.launch.submissions import Submitted, read_submitted, submitted_path
from repro.pipeline.tasks import COMPUTED, Stages, Task, finished

STATES = ("done", "running", "queued", "failed", "lost", "missing")
# lost: it was submitted, none of its jobs is left, and it is not done; missing: it was not submitted and is not done


class Seen(NamedTuple):
    """A task, its state and the latest attempt at it."""

    task: Task
    state: str
    attempt: Attempt | None


class Queued(NamedTuple):
    """What the queue knows of an experiment; None stands for a queue that does not answer."""

    states: dict[str, str]  # of jobs, by their ids
    unrecorded: set[str]  # stages with jobs that are in no record: who submitted them was killed before it wrote one

    @classmethod
    def of(cls, jobs: Sequence[Job], submitted: Submitted) -> Queued:
        unknown = {job.stage for job in jobs if job.id.split("_")[0] not in submitted.arrays}
        return cls({job.id: job.state for job in jobs}, unknown)


def look(stages: Stages, jobs: Sequence[Job] | None, submitted: Submitted) -> list[Seen]:
    """The state of every task; `jobs` are the experiment's in the queue, None if it does not answer.

    Of the stages that are always made anew, only what was submitted or tried.
    """
    queued = None if jobs is None else Queued.of(jobs, submitted)
    seen = [_look_at(task, queued, submitted) for tasks in stages.values() for task in tasks]
    return [s for s in seen if s.task.stage in COMPUTED or s.state != "missing"]


def _look_at(task: Task, queued: Queued | None, submitted: Submitted) -> Seen:
    attempt = read_attempt(task)
    begun = attempt is not None and attempt.ended is None
    its_job = attempt.job if attempt is not None else ""
    running = queued is not None and queued.states.get(its_job, "PENDING") != "PENDING"
    if begun and running:  # at work, whatever files are there by now
        return Seen(task, "running", attempt)
    if finished(task) or (task.stage not in COMPUTED and attempt and attempt.ended and not attempt.error):
        return Seen(task, "done", attempt)
    if attempt is not None and attempt.error:
        return Seen(task, "failed", attempt)
    if running:  # its files are not to be seen yet, where machines share them
        return Seen(task, "running", attempt)
    if queued is None:
        return Seen(task, "running" if begun else "queued" if task in submitted else "missing", attempt)
    if task.stage in queued.unrecorded or any(job in queued.states for job in submitted.jobs(task)):
        return Seen(task, "queued", attempt)
    return Seen(task, "lost" if attempt is not None or task in submitted else "missing", attempt)


class Watch:
    """An experiment's tasks as time goes by. What is done is not asked again, nor what cannot have changed.

    Looking again costs some system calls when nothing has changed: jobs write their attempts by renaming files into one
    folder a stage, whose date tells.
    """

    def __init__(self, stages: Stages, root: Path):
        self._stages, self._root, self._submitted = stages, root, Submitted()
        self._record, *self._folders = submitted_path(root), *(attempts_folder(root, stage) for stage in stages)
        self._seen: dict[tuple[str, str], Seen] = {}
        self._queue: dict[str, str] = {}
        self._dates: list[int] = []

    def look(self, jobs: Sequence[Job]) -> Counter[str]:
        """How many tasks are in which state."""
        dates = [_date(path) for path in (self._record, *self._folders)]
        if dates[:1] != self._dates[:1]:
            self._submitted, self._seen = read_submitted(self._root), {}
        queued = Queued.of(jobs, self._submitted)
        if (queued.states, dates) != (self._queue, self._dates) or not jobs:
            for stage, tasks in self._stages.items():
                for task in tasks:
                    if self._may_have_changed(task, queued):
                        self._seen[stage, task.name] = _look_at(task, queued, self._submitted)
        self._queue, self._dates = queued.states, dates
        shown = (s for s in self._seen.values() if s.task.stage in COMPUTED or s.state != "missing")
        return Counter(s.state for s in shown)

    def _may_have_changed(self, task: Task, queued: Queued) -> bool:
        before = self._seen.get((task.stage, task.name))
        if before is None:
            return True
        if before.state in ("done", "failed"):
            return False
        if before.state in ("running", "lost") or not queued.states:
            return True
        jobs = self._submitted.jobs(task)
        now, then = ([of.get(job, "") for job in jobs] for of in (queued.states, self._queue))
        return now != then or not set(now) <= {"", "PENDING"} or task.stage in queued.unrecorded


def _date(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
