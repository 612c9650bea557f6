"""Where an experiment on SLURM stands, by its files; the queue tells running from lost, accounting only annotates."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from repro.pipeline.launch import queue
from repro.pipeline.launch.attempts import Attempt, read_attempt
from repro.pipeline.launch.local import log_path
from repro.pipeline.launch.queue import Job, SlurmError
from repro.pipeline.tasks import COMPUTED, Stages, Task, finished

STATES = ("done", "running", "queued", "failed", "lost", "missing")  # missing: nothing was tried, nothing is queued


class Seen(NamedTuple):
    """A task, its state and the latest attempt at it."""

    task: Task
    state: str
    attempt: Attempt | None


def look(stages: Stages, jobs: Sequence[Job] | None) -> list[Seen]:
    """The state of every task; `jobs` are the experiment's in the queue, None if it does not answer.

    Of the stages that are always made anew, only what is queued or was tried.
    """
    running = None if jobs is None else {job.id for job in jobs if job.state != "PENDING"}
    waiting = set() if jobs is None else {job.stage for job in jobs}
    seen = [_look_at(task, running, stage in waiting) for stage, tasks in stages.items() for task in tasks]
    return [s for s in seen if s.task.stage in COMPUTED or s.state != "missing"]


def _look_at(task: Task, running: set[str] | None, stage_is_queued: bool) -> Seen:
    attempt = read_attempt(task)
    if finished(task) or (task.stage not in COMPUTED and attempt and attempt.ended and not attempt.error):
        return Seen(task, "done", attempt)
    if attempt is None:
        return Seen(task, "queued" if stage_is_queued else "missing", None)
    if attempt.error:
        return Seen(task, "failed", attempt)
    if running is None or attempt.job in running:
        return Seen(task, "running", attempt)
    return Seen(task, "queued" if stage_is_queued else "lost", attempt)


def report(stages: Stages, root: Path) -> list[str]:
    """The table by stage and cell, pace, what went wrong and where its log is."""
    jobs, remarks = _jobs(root)
    seen = look(stages, jobs)
    lines = [f"{'stage':8} {'cell':40}" + "".join(f"{state:>9}" for state in STATES)]
    for stage, of in itertools.groupby(seen, key=lambda s: s.task.stage):
        lines += _rows(stage, list(of))
    lines += _pace(seen) + _waiting(jobs or []) + _errors(seen) + remarks
    if not jobs and any(s.state == "missing" for s in seen):
        lines.append(f"nothing is queued for what is missing; what jobs said is in {root / 'slurm' / 'jobs'}")
    return lines


def unfinished_logs(stages: Stages, root: Path, lines: int = 20) -> list[str]:
    """The end of the log of every task that failed or was lost, and of its job's."""
    shown = []
    for task, state, attempt in look(stages, _jobs(root)[0]):
        if attempt is not None and state in ("failed", "lost"):
            shown.append(f"== {task.stage} {task.name}: {state}, job {attempt.job} on {attempt.host}")
            for path in (log_path(task), Path(attempt.log)):
                shown += [f"-- {path}", *(path.read_text().splitlines()[-lines:] if path.exists() else ["(not there)"])]
    return shown or ["nothing failed and nothing was lost"]


def wait(stages: Stages, root: Path, say: Callable[[str], object], seconds: float) -> bool:
    """Say how far the jobs are whenever that changes, until none is left; whether all is done."""
    said = ""
    while True:
        jobs = queue.jobs_of(root)
        counts = Counter(seen.state for seen in look(stages, jobs))
        now = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        if now != said:
            say(f"{time.strftime('%H:%M:%S')}  {now}; {len(jobs)} jobs in the queue")
            said = now
        if not jobs:
            return set(counts) <= {"done"}
        time.sleep(seconds)


def _jobs(root: Path) -> tuple[list[Job] | None, list[str]]:
    try:
        return queue.jobs_of(root), []
    except SlurmError as error:
        return None, [f"the queue does not answer, so that running may mean lost: {error}"]


def _rows(stage: str, seen: Sequence[Seen]) -> list[str]:
    """A row a cell; cells that are all done share one."""
    cells: dict[str, Counter[str]] = {}
    for task, state, _ in seen:
        cells.setdefault(_cell(task), Counter())[state] += 1
    rows = {cell: counts for cell, counts in cells.items() if set(counts) != {"done"}}
    if done := [counts for cell, counts in cells.items() if cell not in rows]:
        rows[f"{len(done)} finished cells"] = sum(done, Counter())
    return [f"{stage:8} {cell:40}" + "".join(f"{counts[s] or '.':>9}" for s in STATES) for cell, counts in rows.items()]


def _cell(task: Task) -> str:
    """The cell that a task belongs to: its name begins with it."""
    return "/".join(task.name.split("/")[:3])


def _pace(seen: Sequence[Seen]) -> list[str]:
    """Throughput and remaining time of each stage that runs, from the seconds its finished tasks took."""
    lines = []
    for stage, group in itertools.groupby(seen, key=lambda s: s.task.stage):
        of = list(group)
        took = [s.attempt.ended - s.attempt.started for s in of if s.attempt and s.attempt.ended and s.state == "done"]
        seconds = [each for each in took if each > 0]  # else the clock was set back meanwhile
        counts = Counter(s.state for s in of)
        if seconds and counts["running"]:
            mean = sum(seconds) / len(seconds)
            left = (counts["running"] / 2 + counts["queued"]) * mean / counts["running"]
            hourly = 3600 * counts["running"] / mean
            lines.append(
                f"{stage}: {counts['running']} at once, {mean:.0f} s a task, {hourly:.0f} tasks an hour, "
                f"about {left / 3600:.1f} h to go"
            )
    return lines


def _waiting(jobs: Sequence[Job]) -> list[str]:
    reasons = Counter(job.reason for job in jobs if job.state == "PENDING")
    stuck = [f"{n} jobs wait: {reason}" for reason, n in reasons.most_common()]
    return stuck + ["some wait for what will never be; `make cancel`"] * ("DependencyNeverSatisfied" in reasons)


def _errors(seen: Sequence[Seen]) -> list[str]:
    """The most frequent errors with the log of one task each; lost tasks by the fate of their job."""
    ended = [s for s in seen if s.state in ("failed", "lost") and s.attempt]
    fate = queue.fates(s.attempt.job for s in ended if s.attempt and s.state == "lost")
    kinds: dict[str, list[Seen]] = {}
    for s in ended:
        assert s.attempt is not None
        what = (
            s.attempt.error or f"its job died: {fate.get(s.attempt.job, 'accounting does not say how')}"
        ).splitlines()[0]
        kinds.setdefault(what, []).append(s)
    lines = []
    for what, of in sorted(kinds.items(), key=lambda item: -len(item[1]))[:5]:
        first = of[0]
        assert first.attempt is not None
        job_log = f", {first.attempt.log}" if first.state == "lost" else ""
        lines += [
            f"{len(of)} x {what}",
            f"    e.g. {first.task.stage} {first.task.name}: {log_path(first.task)}{job_log}",
        ]
    return lines
