"""How jobs that are over ended, and what to do about it: by SLURM's accounting and the jobs' own logs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from repro.pipeline.config import Launch
from repro.pipeline.launch.logs import tail
from repro.pipeline.launch.queue import SlurmError, command

# Written into a job's log by SLURM where it ends a job itself; where the kernel does, accounting says OUT_OF_MEMORY.
MEMORY = re.compile(r"oom[-_ ]?kill|exceeded (job |step )?memory limit", re.IGNORECASE)


def fates(jobs: Iterable[str]) -> dict[str, str]:
    """How jobs ended, e.g. "TIMEOUT" or "FAILED with exit code 3", by accounting; empty where there is none.

    `jobs` are ids as squeue has them, 12 or 12_3. Of the states of a job and of its steps the telling one is taken: a
    step may know that it ran out of memory where its job is merely said to have failed.
    """
    wanted = set(jobs)
    arrays = sorted({job.split("_")[0] for job in wanted})
    if not arrays:
        return {}
    try:
        text = command("sacct", "-n", "-P", "-o", "JobID,State,ExitCode", "-j", ",".join(arrays))
    except SlurmError:
        return {}
    found: dict[str, str] = {}
    for row in (line.split("|") for line in text.splitlines() if line.count("|") == 2):
        name, state, code = row
        name, _, step = name.partition(".")
        for job in _elements(name):
            if state.startswith("OUT_OF_ME") or not (step or job in found):
                found[job] = _in_words(state, code)
    return {job: found[job] for job in wanted & found.keys()}


def _elements(name: str) -> Iterator[str]:
    """The ids that a row of sacct is about: of array elements that never began there may be one row, 12_[3-5,8%2]."""
    array, bracket, indices = name.partition("_[")
    if not bracket:
        yield name
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", indices.partition("%")[0]):
        yield from (f"{array}_{index}" for index in range(int(first), int(last or first) + 1))


def _in_words(state: str, code: str) -> str:
    state = state.partition(" ")[0].rstrip("+")  # CANCELLED by 1000
    if state.startswith("OUT_OF_ME"):
        return "OUT_OF_MEMORY"
    status, _, signal = code.partition(":")
    if state != "FAILED" or not status.isdecimal():
        return state
    return f"FAILED by signal {signal}" if signal not in ("", "0") else f"FAILED with exit code {status}"


def advice(fate: str | None, log: Path | None, stage: str, launch: Launch) -> str:
    """What a job of a stage died of, and which setting helps; `launch` is conf/launch/slurm.yaml."""
    settings = launch.of_stage(stage)
    if fate == "OUT_OF_MEMORY" or (log and MEMORY.search("\n".join(tail(log, 50)))):
        return f"OUT_OF_MEMORY, raise launch.stages.{stage}.mem (now {settings.get('mem')})"
    if fate == "TIMEOUT":
        return f"TIMEOUT, raise launch.stages.{stage}.time (now {settings.get('time')} minutes)"
    return fate or "accounting does not say how"
