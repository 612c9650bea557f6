"""What people are told about an experiment on SLURM: a table, what went wrong and what to do, and logs."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from repro.pipeline.config import Launch
from repro.pipeline.launch import queue
from repro.pipeline.launch.fates import advice, fates
from repro.pipeline.launch.hints import Hints
from repro.pipeline.launch.local import log_path
from repro.pipeline.launch.logs import tail
from repro.pipeline.launch.queue import Job, NoClusterError, SlurmError
from repro.pipeline.launch.states import STATES, Seen, Watch, look
from repro.pipeline.launch.submissions import Submitted, read_submitted
from repro.pipeline.tasks import Stages, Task

SILENCE = 3600  # seconds that `wait` waits for a queue that does not answer, while its controller restarts say
MOST_LOGS = 50  # jobs and tasks that `logs` shows


def report(stages: Stages, root: Path, launch: Launch, hints: Hints) -> list[str]:
    """The table by stage and cell, pace, what went wrong, where its log is and what to do."""
    jobs, remarks = _jobs(root)
    submitted = read_submitted(root)
    seen = look(stages, jobs, submitted)
    lines = [f"{'stage':8} {'cell':40}" + "".join(f"{state:>9}" for state in STATES)]
    for stage, of in itertools.groupby(seen, key=lambda s: s.task.stage):
        lines += _rows(stage, list(of))
    lines += _pace(seen) + _waiting(jobs or [], hints) + _errors(seen, submitted, launch) + remarks
    counts = Counter(s.state for s in seen)
    if counts["failed"] or counts["lost"]:
        lines.append(f"{hints.make('logs')} shows what they said, {hints.make('retry')} submits them again")
    if jobs == [] and counts["missing"]:
        lines.append(f"nothing is queued for what is missing; {hints.make('reproduce')} submits it")
    return lines


def unfinished_logs(stages: Stages, root: Path, lines: int = 20) -> list[str]:
    """The end of the log of every task that failed or was lost, and of its job's; each job's log once."""
    submitted = read_submitted(root)
    wrong = [s for s in look(stages, _jobs(root)[0], submitted) if s.state in ("failed", "lost")]
    shown: dict[str, list[str]] = {}  # by what it is headed with
    silent: Counter[str] = Counter()
    for s in wrong:
        logs = _job_logs(s, submitted)
        if s.attempt is not None:
            shown[f"{s.task.stage} {s.task.name}: {s.state}, job {s.attempt.job} on {s.attempt.host}"] = [
                line for path in (log_path(s.task), *logs) for line in (f"-- {path}", *tail(path, lines))
            ]
        elif logs:
            heading = f"{s.task.stage} {s.task.name}: lost, its job died before it began the task"
            known = f"-- {logs[-1]}" in itertools.chain.from_iterable(shown.values())
            shown[heading] = [f"-- {logs[-1]}", *(["(see above)"] if known else tail(logs[-1], lines))]
        else:
            silent[s.task.stage] += 1
    text = [line for head, of in list(shown.items())[:MOST_LOGS] for line in (f"== {head}", *of)]
    if len(shown) > MOST_LOGS:
        text.append(f"== and {len(shown) - MOST_LOGS} more")
    never = "jobs never began (cancelled, perhaps as what they wait for failed): no log"
    text += [f"== {stage}: {count} tasks lost, their {never}" for stage, count in silent.items()]
    return text or ["nothing failed and nothing was lost"]


def wait(stages: Stages, root: Path, say: Callable[[str], object], seconds: float) -> bool:
    """Say how far the jobs are whenever that changes, until none is left; whether all is done.

    A queue that does not answer is waited for.

    Raises:
        SlurmError: it has not answered for an hour, or there are no SLURM commands.
    """
    watch, said, answered, last_look = Watch(stages, root), "", time.monotonic(), False
    while True:
        over = False
        try:
            jobs = queue.jobs_of(root)
        except SlurmError as error:
            if isinstance(error, NoClusterError) or time.monotonic() - answered > SILENCE:
                raise
            now = f"the queue does not answer, and is waited for: {error}"
        else:
            answered, counts = time.monotonic(), watch.look(jobs)
            done = set(counts) <= {"done"}
            over = not jobs and (last_look or done)
            last_look = not jobs  # once more: what jobs wrote on other machines may be seen here with a delay
            states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
            now = f"{states}; {len(jobs)} jobs in the queue"
        if now != said:
            say(f"{time.strftime('%H:%M:%S')}  {now}")
            said = now
        if over:
            return done
        time.sleep(seconds)


def _jobs(root: Path) -> tuple[list[Job] | None, list[str]]:
    try:
        return queue.jobs_of(root), []
    except SlurmError as error:
        return None, [f"the queue does not answer, so that running may mean lost: {error}"]


def _job_logs(s: Seen, submitted: Submitted) -> list[Path]:
    """The log of the job that tried a task last; of one that was not tried, of all jobs that began and held it."""
    if s.attempt is not None:
        return [Path(s.attempt.log)]
    return [path for path in submitted.logs(s.task) if os.path.exists(path)]  # False where it is closed to us


def _rows(stage: str, seen: Sequence[Seen]) -> list[str]:
    """One row per cell; cells that are all done share one."""
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


def _waiting(jobs: Sequence[Job], hints: Hints) -> list[str]:
    reasons = Counter(job.reason for job in jobs if job.state == "PENDING")
    stuck = [f"{n} jobs wait: {reason}" for reason, n in reasons.most_common()]
    if "DependencyNeverSatisfied" in reasons:
        stuck.append(f"some wait for what will never be; {hints.make('cancel')}")
    return stuck


def _errors(seen: Sequence[Seen], submitted: Submitted, launch: Launch) -> list[str]:
    """The most frequent errors with the log of one task each; lost tasks by the fate of their job."""
    ended = [s for s in seen if s.state in ("failed", "lost")]
    fate = fates(job for s in ended if (job := _last_job(s, submitted)))
    kinds: dict[str, list[Seen]] = {}
    for s in ended:
        kinds.setdefault(_what(s, submitted, fate, launch), []).append(s)
    lines = []
    for what, of in sorted(kinds.items(), key=lambda item: -len(item[1]))[:5]:
        first = of[0]
        logs = [log_path(first.task)] if first.attempt else []
        logs += _job_logs(first, submitted)[-1:] if _died(first) else []
        where = ", ".join(map(str, logs)) or "there is no log"
        lines += [f"{len(of)} x {what}", f"    e.g. {first.task.stage} {first.task.name}: {where}"]
    return lines


def _last_job(s: Seen, submitted: Submitted) -> str | None:
    """The job that is to blame for a task that failed or was lost."""
    return s.attempt.job if s.attempt else next(reversed(submitted.jobs(s.task)), None)


def _what(s: Seen, submitted: Submitted, fate: Mapping[str, str], launch: Launch) -> str:
    """What befell a task, in a line."""
    if s.attempt and s.attempt.error and not _died(s):
        return s.attempt.error.splitlines()[0]
    job, logs = _last_job(s, submitted), _job_logs(s, submitted)
    died = "its job died" if s.attempt or logs else "its job never began"
    return f"{died}: {advice(fate.get(job or ''), logs[-1] if logs else None, s.task.stage, launch)}"


def _died(s: Seen) -> bool:
    """Whether a task's job is to blame, not what the task raised."""
    return s.state == "lost" or bool(s.attempt and s.attempt.error and s.attempt.error.startswith("JobDiedError"))
