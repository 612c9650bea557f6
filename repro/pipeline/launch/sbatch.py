"""One array of jobs as a script for sbatch, through submitit.

The script holds no path that SLURM or a shell could read in its own way: sbatch is called in the folder of the jobs, so
that logs have short names without a path, and what the shell gets is quoted. The job's shell becomes the job's Python
(exec), which is therefore told of the time limit, and of which accounting says what it died of.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmJobEnvironment

from repro.pipeline.config import Launch
from repro.pipeline.launch import queue, start
from repro.pipeline.launch.chain import Array
from repro.pipeline.launch.job import Chunk
from repro.pipeline.launch.queue import SlurmError

START = Path(start.__file__).read_text()  # now, so that it is the text of the module that the digest comes from
PATIENCE = 150  # seconds; where the queue is full sbatch itself retries for two minutes, silently
TOO_MANY = re.compile(r"MaxSubmit|submit limit|MaxJobs", re.IGNORECASE)  # a limit of the user's, not of the cluster
FEWER_JOBS = (
    "raise launch.petaflop_per_task or launch.stages.<stage>.tasks_per_job, lower launch.retries, or submit a part of "
    "the grid at a time"
)


class Place(NamedTuple):
    """Where the jobs of an experiment have what."""

    root: Path  # its folder
    logs: Path  # scripts, pickles and logs; made by who submits
    code: Path  # the copy of the package that they run, named by its digest
    umask: int  # that their results are to have


def log_folder(root: Path) -> Path:
    """Where the jobs of an experiment that are submitted today have their scripts, pickles and logs.

    Raises:
        SlurmError: the path holds a character that SLURM does not take as it is in names of logs.
    """
    folder = root.resolve() / "slurm" / "jobs" / datetime.now().strftime("%Y-%m-%d")
    if taken := sorted(set("%\\") & set(str(folder))):
        raise SlurmError(
            f"{root.resolve()} has {' and '.join(taken)} in its name, which SLURM replaces in names of logs; "
            "choose another folder (outputs=...)"
        )
    return folder


def executor_of(array: Array, launch: Launch, place: Place, dependency: str | None) -> SlurmExecutor:
    """submitit's executor with the options of the stage.

    Raises:
        SlurmError: an option is unknown, or its value cannot stand in a script.
    """
    options = _options(array, launch)
    setup = options.pop("setup", None) or []
    if isinstance(setup, str):
        raise SlurmError(f"setup of stage {array.stage} is a list of shell lines: write setup: [{setup!r}]")
    further = options.pop("additional_parameters", None) or {}
    name = "%A_%a" if len(array.chunks) > 1 else "%j"
    further = {"requeue": True, "kill-on-invalid-dep": "yes", **further} | {
        "comment": queue.comment(place.root, array.stage),
        "output": f"{name}_0_log.out",  # in the folder that sbatch is called in; see `submissions.job_log`
        "signal": f"B:{SlurmJobEnvironment.USR_SIG}@{options['signal_delay_s']}",  # B: to the shell, which is Python
    }
    _check_one_line(array.stage, options | further)
    executor = SlurmExecutor(place.logs, launch.requeues, python=f"exec {shlex.join(_start(place))}")
    options |= {
        "job_name": re.sub(r"[^\w.-]", "_", f"{place.root.name}-{array.stage}", flags=re.ASCII),
        "dependency": dependency,
        "setup": [
            f"cd {shlex.quote(os.getcwd())} || exit",
            "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}",
            *setup,
        ],
        "stderr_to_stdout": True,
        "use_srun": False,
        "additional_parameters": further,
    }
    try:
        executor.update_parameters(**{key: value for key, value in options.items() if value is not None})
    except ValueError as error:
        raise SlurmError(f"launch.stages.{array.stage} or launch.resources: {' '.join(str(error).split())}") from error
    return executor


def script_options(array: Array, executor: SlurmExecutor) -> list[str]:
    """What the script tells sbatch, for people."""
    if len(array.chunks) > 1:
        executor.parameters["map_count"] = len(array.chunks)
    text = executor._make_submission_file_text("", "")
    return sorted(line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH"))


def sbatch(array: Array, executor: SlurmExecutor, most_attempts: int) -> str:
    """Submit one array; returns its id.

    Raises:
        SlurmError: it was refused, with what to do if it was for a limit, or there was no answer.
    """
    try:
        with _deadline(PATIENCE), contextlib.chdir(executor.folder), executor.batch():
            jobs = [executor.submit(Chunk(chunk, most_attempts)) for chunk in array.chunks]
    except (FailedJobError, FailedSubmissionError, TimeoutError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error.__cause__, TimeoutError):
            reason = f"no answer within {PATIENCE} s (a full queue, or limits of your account?); {FEWER_JOBS}"
        elif TOO_MANY.search(reason):
            reason = f"{reason}; {FEWER_JOBS}"
        raise SlurmError(
            f"sbatch of {len(array.chunks)} jobs of stage {array.stage} failed: {reason}; "
            "the jobs submitted before it are cancelled"
        ) from error
    return jobs[0].job_id.split("_")[0]


def _start(place: Place) -> list[str]:
    """The command that a job begins with (`start`); submitit adds `-u -m <module> <folder of the job>`."""
    return [sys.executable, "-P", "-u", "-c", START, str(place.code), place.code.name, f"{place.umask:03o}"]


def _options(array: Array, launch: Launch) -> dict[str, Any]:
    """Those of every stage, and what the stage has of its own."""
    options = launch.of_stage(array.stage)
    if not options.get("mail_user"):
        options.pop("mail_type", None)  # SLURM would write to whoever submits
    return options


def _check_one_line(stage: str, options: Mapping[str, Any]) -> None:
    """A line break would end the comment that an option of sbatch is, and begin a command."""
    for name, value in options.items():
        if not str(value).isprintable():
            raise SlurmError(f"the option {name} of stage {stage} is not one line of text: {value!r}; see conf/launch")


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
