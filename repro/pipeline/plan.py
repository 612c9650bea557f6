"""What is still to do of an experiment, and what it will cost on this device (`make plan`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from repro.pipeline.config import Launch
from repro.pipeline.cost import Throughput, calibrate, forward_flop, weight_bytes
from repro.pipeline.devices import find_device
from repro.pipeline.stages.measure import Measure
from repro.pipeline.stages.retrain import Retrain
from repro.pipeline.stages.sweep import Sweep
from repro.pipeline.tasks import Stages, Task
from repro.pipeline.trained import build
from repro.pipeline.trainings import Trainings
from repro.storage import runs
from repro.storage.results import Cell

RUN_BYTES = 4096  # a finished run's json file, one block of a file system
STARTUP_SECONDS = 10.0  # of a job on a cluster: Python, torch, the device, the data
SMALL_BATCH = 16  # examples below which an epoch's last batch spoils the statistics of batch norm


class Plan(NamedTuple):
    """Totals of what is left to do, start-up of the jobs included; `hours` are device hours."""

    jobs: int
    trainings: int
    measurements: int
    hours: float
    measuring_hours: float  # of these, roughly
    longest_job_hours: float  # of the sweep and of retraining
    longest_training_hours: float
    disk_bytes: int
    deviations: dict[str, float]  # of networks timed: predicted over measured time of finished runs, minus one


def plan(stages: Stages, *, job_startup: float, seconds: float = 1.0) -> Plan:
    """Cost of the unfinished tasks, each a job.

    Args:
        job_startup: seconds before a job computes; 0 where workers live on between jobs.
        seconds: length of each of a network's three timings.
    """
    table = Throughputs(seconds)
    training = [task for stage in ("sweep", "retrain") for task in stages[stage] if not task.finished()]
    measuring = [task for task in stages["measure"] if not task.finished()]
    alone = [table.training_seconds(task.trainings, task.device, _rates(task)) for task in training]  # type: ignore[attr-defined]
    counts = [_rates(task) for task in training]
    jobs = [job_startup + each * count for each, count in zip(alone, counts, strict=True)]
    measured = [job_startup + table.measurement_seconds(task) for task in measuring]
    kept = sum(
        len(task.kept_epochs) * table.of(task.trainings, task.device).weight_bytes
        for task in training
        if isinstance(task, Retrain)
    )
    return Plan(
        jobs=len(jobs) + len(measured),
        trainings=sum(counts),
        measurements=len(measuring),
        hours=(sum(jobs) + sum(measured)) / 3600,
        measuring_hours=sum(measured) / 3600,
        longest_job_hours=max(jobs, default=0.0) / 3600,
        longest_training_hours=max(alone, default=0.0) / 3600,
        disk_bytes=sum(counts) * RUN_BYTES + kept,
        deviations=deviations(_stored_seconds(stages["sweep"], table), table),
    )


class Throughputs:
    """The throughput of each network on this device, timed when first asked for.

    On data of another kind, which change its first or last layer alone, it follows from the operations of one image.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._known: dict[str, Throughput] = {}
        self._timed: dict[str, Trainings] = {}
        self._trainings: dict[Cell, float] = {}

    def __contains__(self, trainings: Trainings) -> bool:
        """Whether the throughput of a cell's network is known."""
        return network_name(trainings) in self._known

    def of(self, trainings: Trainings, device: str, rates: int = 1) -> Throughput:
        """Of the network of a cell on a device, as configured."""
        name = network_name(trainings)
        if name not in self._known:
            timed = self._timed.setdefault(trainings.model.full_title, trainings)
            if timed is trainings:
                self._known[name] = calibrate(
                    trainings, lambda: build(trainings), find_device(device), rates=rates, seconds=self._seconds
                )
            else:
                work = forward_flop(trainings) / forward_flop(timed)
                self._known[name] = self._known[network_name(timed)].scaled(work, weight_bytes(trainings))
        return self._known[name]

    def training_seconds(self, trainings: Trainings, device: str, rates: int = 1) -> float:
        """Of one training of a cell."""
        if trainings.cell not in self._trainings:
            self._trainings[trainings.cell] = self.of(trainings, device, rates).training_seconds(trainings)
        return self._trainings[trainings.cell]

    def measurement_seconds(self, task: Task) -> float:
        """Of a measurement; one of no network counts as nothing."""
        if not isinstance(task, Measure) or task.of is None:
            return 0.0
        of = self.of(task.of.trainings, task.device)
        return of.measurement_seconds(task.of.trainings, task.typed_settings())


def network_name(trainings: Trainings) -> str:
    """A network with the kind of data that decide its size."""
    data = trainings.data
    return f"{trainings.model.full_title}, {data.channels} channels, {data.classes} classes"


def deviations(stored: Iterable[tuple[Trainings, str, float]], table: Throughputs) -> dict[str, float]:
    """Predicted time over measured time, minus one, for each network.

    Args:
        stored: (trainings, device, measured seconds) of finished runs that did not diverge.
    """
    predicted: dict[str, float] = {}
    measured: dict[str, float] = {}
    for trainings, device, seconds in stored:
        name = network_name(trainings)
        predicted[name] = predicted.get(name, 0.0) + table.training_seconds(trainings, device)
        measured[name] = measured.get(name, 0.0) + seconds
    return {name: predicted[name] / measured[name] - 1 for name in predicted}


def _rates(task: Task) -> int:
    """How many trainings a task is."""
    return len(task.indices) if isinstance(task, Sweep) else 1


def _stored_seconds(sweep: Iterable[Task], table: Throughputs) -> list[tuple[Trainings, str, float]]:
    """Finished trainings of networks that were timed, with the seconds they took.

    A diverged one stopped early and says nothing.
    """
    found = []
    for task in sweep:
        assert isinstance(task, Sweep)
        for index in task.indices if task.trainings in table else ():
            run = runs.row(runs.run_path(task.root, task.trainings.cell, index))
            if run is not None and not run["diverged"]:
                found.append((task.trainings, task.device, run["seconds"]))
    return found


def beyond_limit(ahead: Plan, launch: Launch) -> str | None:
    """What to do where jobs of the sweep need more than their time limit."""
    minutes = launch.of_stage("sweep").get("time")
    if minutes is None or ahead.longest_job_hours <= (limit := minutes / 60):
        return None
    limits = f"launch.stages.sweep.time is {limit:.3g} h"
    if ahead.longest_training_hours > limit or launch.petaflop_per_task is None:
        return f"one training alone takes {ahead.longest_training_hours:.2f} h, {limits}: raise it"
    fitting = launch.petaflop_per_task * limit / ahead.longest_job_hours
    return f"{limits}: raise it, or try launch.petaflop_per_task={fitting:.3g}"


def small_last_batches(cells: Mapping[Cell, Trainings]) -> list[str]:
    """The cells whose epochs end on a batch of so few examples that batch norm keeps poor statistics of it."""
    named = []
    for cell, trainings in cells.items():
        batches = trainings.recipe.batches(0, trainings.examples)
        if len(batches) > 1 and len(batches[-1]) < SMALL_BATCH:
            named.append(f"{cell} ends each epoch on a batch of {len(batches[-1])}")
    return named
