"""What the SLURM commands say: limits, and jobs that are queued or run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from repro.storage.identity import digest

PATIENCE = 60  # seconds given to a SLURM command
HERE = "launch=local (of make: LAUNCH=local) runs on this machine"


class SlurmError(RuntimeError):
    """A SLURM command is missing, failed or did not answer."""


class NoClusterError(SlurmError):
    """There are no SLURM commands on this machine, or they know of no cluster."""


class Limits(NamedTuple):
    """Of the cluster; array indices are below `array_size`, elements of arrays count as jobs."""

    array_size: int
    jobs: int


class Job(NamedTuple):
    """A job or array element in the queue."""

    id: str  # 12, or 12_3 in an array
    stage: str
    state: str  # PENDING, RUNNING, COMPLETING, ...
    reason: str  # why it waits


def command(*words: str) -> str:
    """The output of a SLURM command.

    Raises:
        NoClusterError: it is not installed, or not configured.
        SlurmError: it failed or did not answer.
    """
    if shutil.which(words[0]) is None:
        raise NoClusterError(f"{words[0]} is not found: this is no SLURM cluster; {HERE}")
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{words[0]} did not answer within {PATIENCE} s; is the SLURM controller up?") from None
    if done.returncode and "configuration source" in done.stderr:
        raise NoClusterError(f"{words[0]} knows of no controller: this is no SLURM cluster, or not set up; {HERE}")
    if done.returncode:
        raise SlurmError(f"{words[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


def limits() -> Limits:
    """What the cluster allows."""
    text = command("scontrol", "show", "config")

    def value(name: str) -> int:
        found = re.search(rf"^{name}\s*=\s*(\d+)", text, re.MULTILINE)
        if found is None:
            raise SlurmError(f"scontrol show config does not tell {name}")
        return int(found[1])

    return Limits(value("MaxArraySize"), value("MaxJobCount"))


def comment(root: Path, stage: str) -> str:
    """The mark by which an experiment's jobs are found again, whatever became of the process that submitted them."""
    return f"repro {digest(str(root.resolve()))} {stage}"


def jobs_of(root: Path) -> list[Job]:
    """An experiment's jobs that wait or run, array elements one by one."""
    mark, found = comment(root, ""), []
    for line in command("squeue", "--noheader", "--array", "--format=%F|%K|%A|%T|%r|%k").splitlines():
        array, index, single, state, reason, note = line.split("|", 5)
        if note.startswith(mark):
            name = single if index == "N/A" else f"{array}_{index}"
            found.append(Job(name, note.removeprefix(mark), state, reason))
    return found


def queue_length() -> int:
    """Jobs of all users in the queue, array elements one by one."""
    return len(command("squeue", "--noheader", "--array", "--format=%A").splitlines())


def cancel(root: Path) -> list[str]:
    """Cancel an experiment's jobs, waiting ones first; returns the ids of the jobs and arrays."""
    ids = sorted({job.id.split("_")[0] for job in jobs_of(root)}, key=int, reverse=True)
    if ids:
        command("scancel", *ids)
    return ids
