"""What a sweep will cost: a short calibration on this device and a cost model by network, examples and epochs.

One step of SGD on B examples takes about a + b B seconds, one evaluated example c seconds; a, b and c are measured for
each network on the device and with the engine that will train it. A training is the sum of its steps and evaluations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from repro.training.block import EVALUATION_BATCH, Runs, initial_network, layout
from repro.training.engines import ENGINES, stack_size
from repro.training.precision import repeatable
from repro.training.recipe import Recipe

RUN_BYTES = 4096  # a finished run's json file, one block of a file system
TOLERANCE = 0.25  # how far a predicted time may be from the measured one


class Throughput(NamedTuple):
    """Seconds of one network in training, as its share of what is trained with it at once."""

    step_seconds: float  # of a step, whatever its batch
    example_seconds: float  # of each example in it
    evaluation_seconds: float  # of each example evaluated
    weight_bytes: int  # of one checkpoint

    def training_seconds(self, recipe: Recipe, examples: int, test_examples: int) -> float:
        """One training: every step of every epoch, and its evaluations on both sets."""
        steps = len(recipe.batches(0, examples))
        evaluations = len(recipe.evaluated_epochs()) * (examples + test_examples)
        epoch = steps * self.step_seconds + examples * self.example_seconds
        return recipe.epochs * epoch + evaluations * self.evaluation_seconds


class Job(NamedTuple):
    """One job of the sweep: some learning rates of one cell."""

    network: str  # key of the throughput table
    recipe: Recipe
    examples: int
    test_examples: int
    rates: int


class Plan(NamedTuple):
    """Totals of a sweep, start-up of the jobs included; `hours` are device hours."""

    jobs: int
    trainings: int
    hours: float
    longest_job_hours: float
    longest_training_hours: float
    disk_bytes: int


def calibrate(
    build: Callable[[], nn.Module],
    recipe: Recipe,
    like: Tensor,
    *,
    engine: str,
    stack: int,
    seconds: float,
) -> Throughput:
    """Measure a network on images such as `like` [1, channels, height, width], for some three times `seconds`.

    Steps are timed at the recipe's batch and at a quarter of it, `stack` networks at once if the engine stacks, as far
    as memory allows.
    """
    large, small = recipe.batch_size, max(2, recipe.batch_size // 4)
    initial = initial_network(build, like, recipe.seed)
    count = min(stack, stack_size(initial, _batch(like, large), None)) if engine == "stacked" else 1
    runs = ENGINES[engine](initial, recipe, list(range(count)))
    with repeatable(recipe.precision):
        at_large, at_small = (_step_seconds(runs, _batch(like, size), seconds) / count for size in (large, small))
        batch = _batch(like, EVALUATION_BATCH)
        evaluation = _seconds(lambda: runs.evaluate([batch]), seconds) / count / EVALUATION_BATCH
    slope = max(0.0, (at_large - at_small) / (large - small))
    weights = sum(tensor.nbytes for tensor in initial.state_dict().values())
    return Throughput(max(0.0, at_large - slope * large), slope, evaluation, weights)


def estimate(
    jobs: Iterable[Job], throughput: Mapping[str, Throughput], *, startup_seconds: float, checkpoints: Mapping[str, int]
) -> Plan:
    """Add up a sweep; `checkpoints` are the weight files that will be kept of each network, over all its cells."""
    jobs = list(jobs)
    alone = [_training_seconds(job, throughput) for job in jobs]
    seconds = [startup_seconds + job.rates * each for job, each in zip(jobs, alone, strict=True)]
    trainings = sum(job.rates for job in jobs)
    weights = sum(count * throughput[network].weight_bytes for network, count in checkpoints.items())
    times = (sum(seconds), max(seconds, default=0.0), max(alone, default=0.0))
    hours, longest_job, longest_training = (time / 3600 for time in times)
    return Plan(len(jobs), trainings, hours, longest_job, longest_training, trainings * RUN_BYTES + weights)


def deviations(jobs: Iterable[tuple[Job, float]], throughput: Mapping[str, Throughput]) -> dict[str, float]:
    """Predicted time over measured time, minus one, for each network.

    Args:
        jobs: (job, measured seconds of its trainings), from the `seconds` of finished runs that did not diverge.
    """
    predicted: dict[str, float] = {}
    measured: dict[str, float] = {}
    for job, seconds in jobs:
        cost = job.rates * _training_seconds(job, throughput)
        predicted[job.network] = predicted.get(job.network, 0.0) + cost
        measured[job.network] = measured.get(job.network, 0.0) + seconds
    return {network: predicted[network] / measured[network] - 1 for network in predicted}


def _training_seconds(job: Job, throughput: Mapping[str, Throughput]) -> float:
    return throughput[job.network].training_seconds(job.recipe, job.examples, job.test_examples)


def _batch(like: Tensor, size: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, *like.shape[1:], dtype=like.dtype, device=like.device).to(memory_format=layout(like))
    return x, torch.zeros(size, dtype=torch.long, device=like.device)


def _step_seconds(runs: Runs, batch: tuple[Tensor, Tensor], seconds: float) -> float:
    def step() -> None:
        runs.step(*batch)
        runs.finite()  # waits for the device

    runs.start_epoch([0.0] * len(runs.indices))
    return _seconds(step, seconds)


def _seconds(once: Callable[[], object], at_least: float) -> float:
    """Mean time of a call, over `at_least` seconds and two calls, after one to warm up."""
    once()
    start, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - start < at_least:
        once()
        calls += 1
    return (time.perf_counter() - start) / calls
