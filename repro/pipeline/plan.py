"""What is still to do of an experiment, and what it will cost on this device (`make plan`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from repro.pipeline.costs import Job, Plan, Throughput, calibrate, deviations, estimate
from repro.pipeline.tasks import Task, finished
from repro.storage import runs
from repro.trained import build, device_of
from repro.training import Recipe

TEST_EXAMPLES = {"fashion_mnist_embedded": 1000}  # of all other data sets 10 000
STARTUP_SECONDS = 10.0  # of a job on a cluster: Python, torch, the device, the data
SIDE = 32  # pixels, after padding


def job_of(config: dict[str, Any], rates: int) -> Job:
    """The cost model's view of `rates` trainings of a cell."""
    data = config["data"]
    examples = config["n_per_class"] * data["classes"]
    test = TEST_EXAMPLES.get(data["name"], 10_000)
    return Job(_network(config), Recipe(**config["training"]), examples, test, rates)


def plan(
    sweep: Sequence[Task], retrain: Sequence[Task], *, job_startup: float, seconds: float = 1.0
) -> tuple[Plan, dict[str, float]]:
    """Cost of the unfinished tasks, each a job, and the deviation of predicted from measured time of finished runs.

    Args:
        job_startup: seconds before a job computes; 0 where workers live on between jobs.
        seconds: length of each of a network's three timings.
    """
    throughput = _throughput([*sweep, *retrain], seconds)
    jobs = [job_of(task.config, len(task.config["lr_indices"])) for task in sweep if not finished(task)]
    again = [task.config for task in retrain if not finished(task)]
    kept: dict[str, int] = {}
    for config in again:
        kept[_network(config)] = kept.get(_network(config), 0) + config["checkpoints"] + 1
    jobs += [job_of(config, 1) for config in again]
    return estimate(jobs, throughput, startup_seconds=job_startup, checkpoints=kept), deviations(
        _measured(sweep), throughput
    )


def beyond_limit(ahead: Plan, launch: Mapping[str, Any]) -> str | None:
    """What to do where jobs of the sweep need more than their time limit in `launch` (conf/launch/slurm.yaml)."""
    limit = {**launch["resources"], **launch["stages"]["sweep"]}["time"] / 60
    if ahead.longest_job_hours <= limit:
        return None
    limits = f"launch.stages.sweep.time is {limit:.3g} h"
    if ahead.longest_training_hours > limit:
        return f"one training alone takes {ahead.longest_training_hours:.2f} h, {limits}: raise it"
    fitting = launch["petaflop_per_task"] * limit / ahead.longest_job_hours
    return f"{limits}: raise it, or try launch.petaflop_per_task={fitting:.3g}"


def _network(config: dict[str, Any]) -> str:
    return f"{config['model']['name']}, {config['data']['channels']} channels, {config['data']['classes']} classes"


def _throughput(tasks: Sequence[Task], seconds: float) -> dict[str, Throughput]:
    """One calibration a network, with the engine its configuration names ('auto' is timed as sequential)."""
    found: dict[str, Throughput] = {}
    for config in (task.config for task in tasks):
        if _network(config) not in found:
            like = torch.zeros(1, config["data"]["channels"], SIDE, SIDE, device=device_of(config))
            engine = "stacked" if config["engine"] == "stacked" else "sequential"
            stack = len(config["lr_indices"])
            found[_network(config)] = calibrate(
                lambda config=config: build(config),  # type: ignore[misc]
                Recipe(**config["training"]),
                like,
                engine=engine,
                stack=stack,
                seconds=seconds,
            )
    return found


def _measured(sweep: Sequence[Task]) -> list[tuple[Job, float]]:
    """Finished trainings with the seconds they took; a diverged one stopped early and says nothing."""
    found = []
    for config in (task.config for task in sweep):
        for index in config["lr_indices"]:
            path = runs.run_path(Path(config["root"]), runs.cell_of(config), index)
            if path.exists() and not (run := runs.read_run(path))["metrics"]["diverged"]:
                found.append((job_of(config, 1), run["provenance"]["seconds"]))
    return found
