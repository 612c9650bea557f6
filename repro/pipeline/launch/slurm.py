"""Submit the stages of an experiment to SLURM, all at once, through submitit; no process is left behind.

Result files decide what is left to do, not the queue. What was submitted is recorded beside them.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path

from repro.pipeline.config import Launch
from repro.pipeline.launch import queue
from repro.pipeline.launch.attempts import forget
from repro.pipeline.launch.chain import Array, chain
from repro.pipeline.launch.hints import Hints
from repro.pipeline.launch.private import private_files, private_folder
from repro.pipeline.launch.queue import SlurmError
from repro.pipeline.launch.sbatch import FEWER_JOBS, Place, executor_of, log_folder, sbatch, script_options
from repro.pipeline.launch.snapshot import snapshot
from repro.pipeline.launch.submissions import Submission, read_submitted, write_submitted
from repro.pipeline.tasks import Stages
from repro.storage.files import check_folder, refused
from repro.storage.provenance import code_version


def submit(stages: Stages, root: Path, launch: Launch, hints: Hints) -> list[str]:
    """Submit what is unfinished below an experiment's folder `root`; returns a line about each array.

    `launch` is conf/launch/slurm.yaml. The jobs run the package as it is now, from a copy. Should one sbatch fail, what
    was submitted before it is cancelled.

    Raises:
        SlurmError: jobs of the experiment are in the queue already, the chain exceeds a limit of the cluster, or
            sbatch failed.
        OSError: the folder for jobs is someone else's, or cannot be written.
    """
    logs = log_folder(root)
    check_folder(root)
    with _lock(private_folder(root / "slurm") / "submit.lock"):
        if jobs := queue.jobs_of(root):
            raise SlurmError(
                f"{len(jobs)} jobs of this experiment are in the queue already, {jobs[0].id} is {jobs[0].state}; "
                f"{hints.make('wait')} attaches to them, {hints.make('cancel')} ends them"
            )
        limits = queue.limits()
        arrays = chain(stages, launch, max(limits.array_size, 1))
        _check_fits(arrays, limits, queue.queue_length())
        for array in arrays:
            for chunk in array.chunks:
                for task in chunk:
                    forget(task)
        ids = _submit_all(arrays, root, launch, logs)
    lines = [array.describe(ids, id) for array, id in zip(arrays, ids, strict=True)]
    if code_version().endswith("+"):
        lines.append(f"uncommitted changes: the jobs run the files as they are now, not commit {code_version()[:-1]}")
    return lines


def dry_run(stages: Stages, root: Path, launch: Launch) -> list[str]:
    """A line about each array that `submit` would submit, and the options of its sbatch; nothing is written."""
    arrays = chain(stages, launch, max(queue.limits().array_size, 1))
    names = [f"<{position}>" for position in range(len(arrays))]
    place = Place(root, log_folder(root), root / "slurm" / "code" / "<digest>", 0)
    lines = []
    for array, name in zip(arrays, names, strict=True):
        executor = executor_of(array, launch, place, array.dependency(names))
        lines += [array.describe(names, name), f"    sbatch {' '.join(script_options(array, executor))}"]
    return lines


def _check_fits(arrays: Sequence[Array], limits: queue.Limits, waiting: int) -> None:
    jobs = sum(len(array.chunks) for array in arrays)
    if jobs + waiting > limits.jobs:
        raise SlurmError(
            f"{jobs} jobs do not fit: the cluster takes MaxJobCount = {limits.jobs} and {waiting} are in its queue; "
            f"{FEWER_JOBS}"
        )


def _submit_all(arrays: Sequence[Array], root: Path, launch: Launch, logs: Path) -> list[str]:
    """Submit the arrays and record each at once; returns their ids."""
    before = read_submitted(root)
    record = before.without(task for array in arrays for chunk in array.chunks for task in chunk).submissions
    ids: list[str] = []
    try:
        with _files_of_jobs(root) as umask:
            logs.mkdir(parents=True, exist_ok=True)
            place = Place(root, logs, snapshot(root.resolve() / "slurm" / "code"), umask)
        for array in arrays:
            executor = executor_of(array, launch, place, array.dependency(ids))
            with _files_of_jobs(root):
                ids.append(sbatch(array, executor, 1 + launch.retries))
            _add(record, array, ids[-1], logs)
            write_submitted(root, record)
    except BaseException:
        try:
            queue.cancel(root)
        except SlurmError as error:
            raise SlurmError(f"could not cancel what was submitted already, {', '.join(ids)}: {error}") from error
        with contextlib.suppress(OSError):
            write_submitted(root, before.submissions)
        raise
    return ids


@contextlib.contextmanager
def _files_of_jobs(root: Path) -> Iterator[int]:
    """Private ones, and a sentence where they cannot be written; yields the umask from before."""
    try:
        with private_files() as umask:
            yield umask
    except OSError as error:
        raise refused(root / "slurm", error) from error


def _add(record: list[Submission], array: Array, id: str, logs: Path) -> None:
    """Note an array: a further pass over tasks that are in the record already, or the first."""
    names = [[task.name for task in chunk] for chunk in array.chunks]
    for submission in record if array.attempt else []:
        if (submission.stage, submission.tasks) == (array.stage, names):
            submission.arrays.append(id)
            return
    record.append(Submission(array.stage, names, str(logs), [id]))


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process submit at a time; the system takes the lock from one that dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SlurmError(f"another process is submitting this experiment right now ({path} is locked)") from None
        yield
