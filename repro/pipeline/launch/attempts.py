"""What jobs tried: one small json file a task, beside the results, written by the job that works on the task.

    outputs/<experiment>/attempts/<stage>/<task>.json

Whether a task is done is not asked here but of its result files (`repro.pipeline.tasks.finished`).
"""

from __future__ import annotations

import logging
import platform
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from repro.pipeline.tasks import Task
from repro.storage.files import write_json
from repro.storage.sealed import read_json, stored

log = logging.getLogger(__name__)


@dataclass
class Attempt:
    """The latest attempt at a task, and how many there were since it was submitted."""

    attempts: int  # those cut short by a time limit or preemption are not counted
    job: str  # SLURM's id: 12, or 12_3 in an array
    log: str  # of the job
    host: str
    started: float  # seconds since 1970, like `ended`
    ended: float | None = None
    error: str | None = None  # type and message of what was raised
    trace: str = ""


def attempts_folder(root: Path, stage: str) -> Path:
    return root / "attempts" / stage


def attempt_path(task: Task) -> Path:
    return attempts_folder(task.root, task.stage) / f"{task.name.replace('/', '_')}.json"


def read_attempt(task: Task) -> Attempt | None:
    """The latest attempt at a task; None if no job has begun it since it was submitted.

    With a damaged file, which is set aside, it is as if the task had not been tried.
    """
    return stored(attempt_path(task), lambda path: Attempt(**read_json(path)))


def begin(task: Task, job: str, log: Path) -> Attempt:
    """Note that a job begins a task, before it does, so that an attempt that dies is known."""
    before = read_attempt(task)
    attempt = Attempt((before.attempts if before else 0) + 1, job, str(log), platform.node(), time.time())
    _write(task, attempt)
    return attempt


def end(task: Task, attempt: Attempt, error: BaseException | None = None) -> None:
    """Note that an attempt is over: done, or raised `error`."""
    attempt.ended = time.time()
    if error is not None:
        attempt.error = f"{type(error).__name__}: {error}"
        attempt.trace = "".join(traceback.format_exception(error))
    _write(task, attempt)


def interrupt(task: Task, attempt: Attempt) -> None:
    """Note that an attempt was cut short and will go on; it does not count."""
    attempt.attempts -= 1
    _write(task, attempt)


def forget(task: Task) -> None:
    """Let a task be tried anew."""
    attempt_path(task).unlink(missing_ok=True)


def _write(task: Task, attempt: Attempt) -> None:
    """A note that cannot be written, on a full disk say, does not keep the task from being done."""
    try:
        write_json(attempt_path(task), asdict(attempt))
    except OSError as error:
        log.warning("%s", error)
