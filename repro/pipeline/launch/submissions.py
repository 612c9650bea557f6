"""What was submitted: which job of which array holds which task. So a job that dies before Python starts is known, too.

    outputs/<experiment>/attempts/submitted.json

Only the latest submission of a task counts. The queue says which of its jobs are left; a task of which none is left and
that is not done is lost, whatever its stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from repro.pipeline.launch.attempts import forget
from repro.pipeline.tasks import Task
from repro.storage.files import write_json
from repro.storage.sealed import read_json, stored


@dataclass
class Submission:
    """Some tasks of a stage, cut into jobs, and the arrays that hold them: one for each pass over the stage."""

    stage: str
    tasks: list[list[str]]  # the names of each job's
    logs: str  # the folder of the jobs' logs
    arrays: list[str] = field(default_factory=list)  # SLURM's ids

    def job(self, array: str, position: int) -> str:
        """The id of the array's job that holds the tasks at a position: 12, or 12_3 where there are several."""
        return f"{array}_{position}" if len(self.tasks) > 1 else array


class Submitted:
    """The submissions of an experiment, and by task the jobs that hold it."""

    def __init__(self, submissions: Iterable[Submission] = ()):
        self.submissions = list(submissions)
        self._of_task: dict[tuple[str, str], tuple[Submission, int]] = {}
        for submission in self.submissions:
            for position, names in enumerate(submission.tasks):
                self._of_task |= {(submission.stage, name): (submission, position) for name in names}
        self.arrays = {array for submission in self.submissions for array in submission.arrays}

    def __contains__(self, task: Task) -> bool:
        return (task.stage, task.name) in self._of_task

    def jobs(self, task: Task) -> list[str]:
        """The ids of the jobs that hold a task, one for each pass; empty if it was not submitted."""
        if task not in self:
            return []
        submission, position = self._of_task[task.stage, task.name]
        return [submission.job(array, position) for array in submission.arrays]

    def logs(self, task: Task) -> list[Path]:
        """The logs of those jobs, which are there once a job has begun."""
        if task not in self:
            return []
        submission, _ = self._of_task[task.stage, task.name]
        return [job_log(Path(submission.logs), job) for job in self.jobs(task)]

    def without(self, tasks: Iterable[Task]) -> Submitted:
        """What is left of the submissions when some tasks are submitted anew, or were done otherwise."""
        gone = {(task.stage, task.name) for task in tasks}
        kept = []
        for s in self.submissions:
            names = [[name for name in of if (s.stage, name) not in gone] for of in s.tasks]
            if any(names):
                kept.append(Submission(s.stage, names, s.logs, s.arrays))
        return Submitted(kept)


def job_log(folder: Path, job: str) -> Path:
    """Where a job's output goes, all of it; this is submitit's name for it."""
    return folder / f"{job}_0_log.out"


def submitted_path(root: Path) -> Path:
    return root / "attempts" / "submitted.json"


def read_submitted(root: Path) -> Submitted:
    """What was submitted of the experiment below `root`.

    Nothing if the record is damaged and set aside: jobs that died before Python started are then not known as lost.
    """
    return stored(submitted_path(root), _read) or Submitted()


def _read(path: Path) -> Submitted:
    return Submitted(Submission(**each) for each in read_json(path)["submissions"])


def write_submitted(root: Path, submissions: Sequence[Submission]) -> None:
    write_json(submitted_path(root), {"submissions": [asdict(submission) for submission in submissions]})


def done_elsewhere(tasks: Sequence[Task]) -> None:
    """Note that tasks were done without a job, so that jobs that failed at them or were lost no longer count."""
    for task in tasks:
        forget(task)
    for root in {task.root for task in tasks}:
        before = read_submitted(root)
        if any(task in before for task in tasks):
            write_submitted(root, before.without(tasks).submissions)
