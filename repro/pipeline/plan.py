"""What is still to do of an experiment, and what it will cost (`make plan`).

Time is predicted from the trainings that are finished, on whatever device that was; networks of which none is are timed
on this device. Workers of this machine time a network side by side, as they will train it: on cores that share a memory
networks of millions of weights take up to twice as long so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

from repro.pipeline.config import Launch
from repro.pipeline.cost import Throughput, of_finished, products
from repro.pipeline.devices import find_device
from repro.pipeline.launch.local import Workers
from repro.pipeline.stages.measure import Measure
from repro.pipeline.stages.retrain import Retrain
from repro.pipeline.stages.sweep import Sweep
from repro.pipeline.tasks import Stages, Task
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
    timed: tuple[str, ...]  # the networks of which no training was finished, so that they were timed on this device
    deviations: dict[str, float]  # of the other networks: predicted over measured time of their trainings, minus one


def plan(stages: Stages, *, job_startup: float, workers: Workers | None = None, seconds: float = 1.0) -> Plan:
    """Cost of the unfinished tasks, each a job.

    Args:
        job_startup: seconds before a job computes; 0 where workers live on between jobs.
        workers: of this machine, that will do them and time networks at the same time; None times them here, alone.
        seconds: length of each of the three timings of a network.
    """
    table = Throughputs(_finished(stages["sweep"]), seconds, workers)
    training = [task for stage in ("sweep", "retrain") for task in stages[stage] if not task.finished()]
    measuring = [task for task in stages["measure"] if not task.finished()]
    alone = [table.training_seconds(task.trainings, task.device, _rates(task)) for task in training]  # type: ignore[attr-defined]
    counts = [_rates(task) for task in training]
    jobs = [job_startup + each * count for each, count in zip(alone, counts, strict=True)]
    measured = [job_startup + table.measurement_seconds(task) for task in measuring]
    kept = sum(
        len(task.kept_epochs) * task.trainings.network_size.weight_bytes
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
        timed=tuple(table.timed),
        deviations=table.deviations(),
    )


class Throughputs:
    """The throughput of each network, by its finished trainings; without any it is timed on this device when asked for.

    On data of another kind, which change its first or last layer alone, it follows from the operations of one image.

    Args:
        finished: cells with the seconds of one of their trainings.
        seconds: length of each of the three timings of a network.
        workers: that time it at the same time; see `plan`.
    """

    def __init__(
        self, finished: Mapping[Cell, tuple[Trainings, float]], seconds: float, workers: Workers | None = None
    ):
        self._seconds, self._workers = seconds, workers
        self._finished: dict[str, list[tuple[Trainings, float]]] = {}
        for trainings, each in finished.values():
            self._finished.setdefault(network_name(trainings), []).append((trainings, each))
        self._known = {name: of_finished(of) for name, of in self._finished.items()}
        self._first = {of[0][0].model.full_title: of[0][0] for of in self._finished.values()}  # of each architecture
        self._trainings: dict[Cell, float] = {}
        self.timed: list[str] = []  # names of networks

    def of(self, trainings: Trainings, device: str, rates: int = 1) -> Throughput:
        """Of the network of a cell on a device, as configured."""
        name = network_name(trainings)
        if name not in self._known:
            first = self._first.setdefault(trainings.model.full_title, trainings)
            if first is trainings:
                self.timed.append(name)
                self._known[name] = self._timed(trainings, device, rates)
            else:
                work = trainings.network_size.flop / first.network_size.flop
                self._known[name] = self._known[network_name(first)].scaled(work)
        return self._known[name]

    def _timed(self, trainings: Trainings, device: str, rates: int) -> Throughput:
        if self._workers is None:
            return timed(trainings, device, rates, self._seconds)
        each = self._workers.on_all(timed, trainings, device, rates, self._seconds)
        return Throughput(*map(fmean, zip(*each)))

    def training_seconds(self, trainings: Trainings, device: str, rates: int = 1) -> float:
        """Of one training of a cell."""
        if trainings.cell not in self._trainings:
            self._trainings[trainings.cell] = self.of(trainings, device, rates).training_seconds(trainings)
        return self._trainings[trainings.cell]

    def measurement_seconds(self, task: Task) -> float:
        """Of a measurement; one of no network counts as nothing."""
        if not isinstance(task, Measure) or task.of is None:
            return 0.0
        of = task.of.trainings
        count = products(task.settings, task.usual_steps, of.data.classes)
        return count * self.of(of, task.device).product_seconds(of)

    def deviations(self) -> dict[str, float]:
        """Predicted over measured time of each network's finished trainings, minus one."""
        found = {}
        for name, of in self._finished.items():
            predicted = sum(self._known[name].training_seconds(trainings) for trainings, _ in of)
            found[name] = predicted / sum(seconds for _, seconds in of) - 1
        return found


def timed(trainings: Trainings, device: str, rates: int, seconds: float) -> Throughput:
    """The throughput of a cell's network on this device, in this process; see `calibrate`."""
    from repro.pipeline.calibration import calibrate  # torch: a plan by finished trainings does without
    from repro.pipeline.trained import build

    return calibrate(trainings, lambda: build(trainings), find_device(device), rates=rates, seconds=seconds)


def network_name(trainings: Trainings) -> str:
    """A network with the kind of data that decide its size."""
    data = trainings.data
    return f"{trainings.model.full_title}, {data.channels} channels, {data.classes} classes"


def _rates(task: Task) -> int:
    """How many trainings a task is."""
    return len(task.indices) if isinstance(task, Sweep) else 1


def _finished(sweep: Iterable[Task]) -> dict[Cell, tuple[Trainings, float]]:
    """The cells with finished trainings, with the mean seconds of one; those that diverged do not count."""
    of: dict[Cell, Trainings] = {}
    seconds: dict[Cell, list[float]] = {}
    for task in sweep:
        assert isinstance(task, Sweep)
        cell = task.trainings.cell
        for index in task.indices:
            run = runs.row(runs.run_path(task.root, cell, index))
            if run is not None and not run["diverged"]:
                of[cell] = task.trainings
                seconds.setdefault(cell, []).append(run["seconds"])
    return {cell: (of[cell], fmean(each)) for cell, each in seconds.items()}


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
        sizes = trainings.recipe.batch_sizes(trainings.examples)
        if len(sizes) > 1 and sizes[-1] < SMALL_BATCH:
            named.append(f"{cell} ends each epoch on a batch of {sizes[-1]}")
    return named
