"""What a SLURM job does: some tasks of a stage, one after the other. It may die, be requeued or be run twice."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from submitit import JobEnvironment
from submitit.core.utils import UncompletedJobError
from submitit.helpers import Checkpointable, DelayedSubmission

from repro.pipeline.launch.attempts import Attempt, begin, end, interrupt, read_attempt
from repro.pipeline.launch.local import FailedTasksError, run_logged
from repro.pipeline.tasks import Task, unfinished

log = logging.getLogger(__name__)


class JobDiedError(RuntimeError):
    """A task took its job with it as often as it was tried."""


class Chunk(Checkpointable):
    """Tasks of one job.

    A task that raises is not tried again, one whose job died is, up to `most_attempts` in all passes together.
    """

    def __init__(self, tasks: Sequence[Task], most_attempts: int):
        self.tasks, self.most_attempts = list(tasks), most_attempts
        self._current: tuple[Task, Attempt] | None = None

    def __call__(self) -> None:
        """Do the tasks that are left to do; go on when one raises.

        Raises:
            FailedTasksError: at the end, so that SLURM's accounting shows a failed job.
        """
        for task in sorted(self.tasks, key=_attempts):  # one that kills its job does not keep the others from theirs
            if self._is_left(task):
                self._do(task)
        attempts = [(task, read_attempt(task)) for task in self.tasks]
        failed = [f"{task.name}: {attempt.error}" for task, attempt in attempts if attempt and attempt.error]
        if failed:
            raise FailedTasksError(f"{len(failed)} of {len(self.tasks)} tasks failed:\n" + "\n".join(failed))

    def _is_left(self, task: Task) -> bool:
        attempt = read_attempt(task)
        if attempt is not None and attempt.ended is not None:
            return False
        if not unfinished([task]):
            return False
        if attempt is not None and attempt.attempts >= self.most_attempts:
            end(task, attempt, JobDiedError(f"its job died {attempt.attempts} times"))
            return False
        return True

    def _do(self, task: Task) -> None:
        environment = JobEnvironment()
        attempt = begin(task, environment.job_id, environment.paths.stdout)
        self._current = task, attempt
        try:
            run_logged(task)
        except UncompletedJobError:  # raised by submitit in the midst of the task, when it was requeued often enough
            reason = f"its job met the time limit too often; raise launch.stages.{task.stage}.time"
            end(task, attempt, TimeoutError(reason))
            raise
        except Exception as error:
            log.exception("%s %s failed", task.stage, task.name)
            end(task, attempt, error)
        else:
            end(task, attempt)
        self._current = None

    def checkpoint(self) -> DelayedSubmission:
        """Called before the job is requeued because of its time limit or a preemption."""
        if self._current is not None:
            interrupt(*self._current)
            self._current = None
        return DelayedSubmission(self)


def _attempts(task: Task) -> int:
    attempt = read_attempt(task)
    return attempt.attempts if attempt else 0
