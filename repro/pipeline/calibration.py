"""What a network's training costs on this device: its steps and its evaluation, timed."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from repro.pipeline.cost import Throughput
from repro.pipeline.trainings import Trainings
from repro.training.block import EVALUATION_BATCH, Runs, initial_network, layout
from repro.training.engines import ENGINES, at_once
from repro.training.precision import repeatable


def calibrate(
    trainings: Trainings, build: Callable[[], nn.Module], device: str, *, rates: int, seconds: float
) -> Throughput:
    """Measure the network of a cell on a device, for some three times `seconds`; a large network takes longer.

    Steps are timed at the recipe's batch and at a quarter of it, with as many networks at once as the engine trains of
    a task with `rates` learning rates.

    Args:
        build: makes the network.
    """
    data, recipe = trainings.data, trainings.recipe
    like = torch.zeros(1, data.channels, data.side, data.side, device=device)
    large, small = recipe.batch_size, max(2, recipe.batch_size // 4)
    initial = initial_network(build, like, recipe.seed)
    count = at_once(trainings.engine, initial, _batch(like, large), rates, trainings.stack_bytes)
    runs = ENGINES[trainings.engine](initial, recipe, list(range(count)))
    with repeatable(recipe.precision):
        at_large, at_small = (_step_seconds(runs, _batch(like, size), seconds) / count for size in (large, small))
        batch = _batch(like, EVALUATION_BATCH)
        evaluation = _seconds(lambda: runs.evaluate([batch]), seconds) / count / EVALUATION_BATCH
    slope = max(0.0, (at_large - at_small) / (large - small))
    return Throughput(max(0.0, at_large - slope * large), slope, evaluation)


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
    """Mean time of a call, over `at_least` seconds and two calls, after one to warm up.

    One call that takes ten times as long is not repeated: what warming up costs is little beside it.
    """
    start = time.perf_counter()
    once()
    if (alone := time.perf_counter() - start) > 10 * at_least:
        return alone
    start, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - start < at_least:
        once()
        calls += 1
    return (time.perf_counter() - start) / calls
