"""Submit the stages of an experiment to SLURM, all at once, through submitit; no process is left behind.

    sweep -> the same again, for tasks whose job died -> select, which refuses when runs are missing
          -> retrain (and again) -> measure (and again) -> figures -> report

Passes over a stage wait for the end of the pass before, however it ended; what comes after `select` also waits for its
success, and is cancelled by SLURM when it fails. Result files decide what is left to do, not the queue.
"""

from __future__ import annotations

import contextlib
import fcntl
import signal
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from repro.pipeline import tasks
from repro.pipeline.config import Launch
from repro.pipeline.launch import queue
from repro.pipeline.launch.attempts import forget
from repro.pipeline.launch.job import Chunk
from repro.pipeline.launch.queue import SlurmError
from repro.pipeline.launch.snapshot import snapshot
from repro.pipeline.tasks import COMPUTED, Stages, Task
from repro.storage.provenance import code_version

SBATCH_PATIENCE = 150  # seconds; where the queue is full sbatch itself retries for two minutes, silently


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


def unfinished(stages: Stages) -> dict[str, list[Task]]:
    """What is left to do. Select, figures and report are made anew whenever they are asked for."""
    return {stage: tasks.unfinished(of) if stage in COMPUTED else list(of) for stage, of in stages.items()}


def chain(stages: Stages, launch: Launch, array_size: int) -> list[Array]:
    """The arrays of unfinished tasks, in the order of submission; none has more than `array_size` jobs."""
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


def submit(stages: Stages, root: Path, launch: Launch) -> list[str]:
    """Submit what is unfinished below an experiment's folder `root`; returns a line about each array.

    `launch` is conf/launch/slurm.yaml. The jobs run the package as it is now, from a copy. Should one sbatch fail, what
    was submitted before it is cancelled.

    Raises:
        SlurmError: jobs of the experiment are in the queue already, the chain exceeds a limit of the cluster, or
            sbatch failed.
    """
    with _lock(root / "slurm" / "submit.lock"):
        if jobs := queue.jobs_of(root):
            raise SlurmError(
                f"{len(jobs)} jobs of this experiment are in the queue already, {jobs[0].id} is {jobs[0].state}; "
                "`make wait` attaches to them, `make cancel` ends them"
            )
        limits = queue.limits()
        arrays = chain(stages, launch, max(limits.array_size, 1))
        _check_fits(arrays, limits, queue.queue_length())
        for array in arrays:
            for chunk in array.chunks:
                for task in chunk:
                    forget(task)
        ids = _submit_all(arrays, root, launch)
    lines = [describe(array, ids, id) for array, id in zip(arrays, ids, strict=True)]
    if code_version().endswith("+"):
        lines.append(f"uncommitted changes: the jobs run the files as they are now, not commit {code_version()[:-1]}")
    return lines


def dry_run(stages: Stages, root: Path, launch: Launch) -> list[str]:
    """A line about each array that `submit` would submit, and the options of its sbatch; nothing is written."""
    arrays = chain(stages, launch, max(queue.limits().array_size, 1))
    names = [f"<{position}>" for position in range(len(arrays))]
    lines = []
    for array, name in zip(arrays, names, strict=True):
        executor = _executor(array, root, launch, root / "slurm" / "code" / "<digest>", array.dependency(names))
        if len(array.chunks) > 1:
            executor.parameters["map_count"] = len(array.chunks)
        text = executor._make_submission_file_text("", "")
        options = sorted(line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH"))
        lines += [describe(array, names, name), f"    sbatch {' '.join(options)}"]
    return lines


def describe(array: Array, ids: Sequence[str], name: str) -> str:
    """One line for people."""
    tasks = sum(len(chunk) for chunk in array.chunks)
    again = f", pass {array.attempt + 1}" if array.attempt else ""
    waits = array.dependency(ids)
    return f"{name:>8}  {array.stage}{again}: {tasks} tasks in {len(array.chunks)} jobs" + (
        f", {waits}" if waits else ""
    )


def _check_fits(arrays: Sequence[Array], limits: queue.Limits, waiting: int) -> None:
    jobs = sum(len(array.chunks) for array in arrays)
    if jobs + waiting > limits.jobs:
        raise SlurmError(
            f"{jobs} jobs do not fit: the cluster takes MaxJobCount = {limits.jobs} and {waiting} are in its queue; "
            "raise launch.petaflop_per_task or launch.stages.<stage>.tasks_per_job, lower launch.retries, or submit a "
            "part of the grid at a time"
        )


def _submit_all(arrays: Sequence[Array], root: Path, launch: Launch) -> list[str]:
    ids: list[str] = []
    try:
        code = snapshot(root / "slurm" / "code")
        for array in arrays:
            ids.append(_sbatch(array, _executor(array, root, launch, code, array.dependency(ids)), launch))
    except BaseException:
        try:
            queue.cancel(root)
        except SlurmError as error:
            raise SlurmError(f"could not cancel what was submitted already, {', '.join(ids)}: {error}") from error
        raise
    return ids


def _executor(array: Array, root: Path, launch: Launch, code: Path, dependency: str | None) -> SlurmExecutor:
    """submitit's executor with the options of the stage."""
    resources = launch.of_stage(array.stage)
    if not resources.get("mail_user"):
        resources.pop("mail_type", None)  # SLURM would write to whoever submits
    options = {"requeue": True, "kill-on-invalid-dep": "yes", **(resources.pop("additional_parameters", None) or {})}
    options["comment"] = queue.comment(root, array.stage)
    setup = [
        f"export PYTHONPATH='{code.resolve()}'${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1",  # not the working tree
        "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}",
        *(resources.pop("setup", None) or []),
    ]
    executor = SlurmExecutor(_log_folder(root), max_num_timeout=launch.requeues)
    executor.update_parameters(
        **resources,
        job_name=f"{root.name}-{array.stage}",
        dependency=dependency,
        setup=setup,
        additional_parameters=options,
    )
    return executor


def _log_folder(root: Path) -> Path:
    return root / "slurm" / "jobs" / datetime.now().strftime("%Y-%m-%d")


def _sbatch(array: Array, executor: SlurmExecutor, launch: Launch) -> str:
    """Submit one array; returns its id."""
    try:
        with _deadline(SBATCH_PATIENCE), executor.batch():
            jobs = [executor.submit(Chunk(chunk, 1 + launch.retries)) for chunk in array.chunks]
    except (FailedJobError, FailedSubmissionError, TimeoutError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error.__cause__, TimeoutError):
            reason = f"no answer within {SBATCH_PATIENCE} s (a full queue, or limits of your account?)"
        raise SlurmError(
            f"sbatch of {len(array.chunks)} jobs of stage {array.stage} failed: {reason}; "
            "the jobs submitted before it are cancelled"
        ) from error
    return jobs[0].job_id.split("_")[0]


@contextlib.contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block when it takes longer (in the main thread only)."""

    def expire(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process submit at a time; the system takes the lock from one that dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SlurmError(f"another process is submitting this experiment right now ({path} is locked)") from None
        yield
