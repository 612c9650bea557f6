"""What trainings and measurements cost: in floating-point operations, and in seconds once a device has been timed.

Operations are counted by PyTorch on one image, without computing anything; they cut the sweep into tasks and order
what runs side by side. Seconds are those operations' counterpart on this device: one step of SGD on B examples takes
about a + b B seconds, one evaluated example c seconds, measured for each network with the engine that will train it.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from repro.models import Architecture
from repro.pipeline.trainings import Trainings
from repro.training.block import EVALUATION_BATCH, Runs, initial_network, layout
from repro.training.engines import ENGINES, at_once
from repro.training.precision import repeatable

GRADIENT = 3  # forward passes that a gradient costs: backward is twice the forward pass
PRODUCT = 3  # gradients that a product of a curvature matrix with a vector costs, of two to four


def training_petaflop(trainings: Trainings) -> float:
    """Operations (1e15) of one training of a cell."""
    return GRADIENT * forward_flop(trainings) * trainings.examples * trainings.recipe.epochs / 1e15


def measurement_petaflop(trainings: Trainings, settings: Any) -> float:
    """Operations (1e15) of a measurement of a cell's network."""
    per_product = PRODUCT * GRADIENT * forward_flop(trainings) * trainings.examples / 1e15
    return products(settings, trainings.data.classes) * per_product


def products(settings: Any, classes: int) -> int:
    """Products with a matrix that a measurement takes, roughly, by those of its settings that say how many."""
    steps = getattr(settings, "steps", None) or getattr(settings, "max_products", None)
    if steps is None:
        steps = max(getattr(settings, "usual_steps", 10), 2 * classes)
    return steps * getattr(settings, "probes", 1)


def forward_flop(trainings: Trainings) -> int:
    """Operations of one image's pass through the network of a cell; a multiplication and an addition are two."""
    model, data = trainings.model, trainings.data
    settings = json.dumps(dict(model.settings), sort_keys=True)
    return _forward_flop(model.builder, settings, data.channels, data.classes, data.side)


@functools.lru_cache
def _forward_flop(builder: str, settings: str, channels: int, classes: int, side: int) -> int:
    architecture = Architecture(builder, builder, builder, json.loads(settings))

    def count(device: str) -> int:
        with torch.device(device), torch.no_grad(), FlopCounterMode(display=False) as counter:
            network = architecture.build(channels=channels, classes=classes, side=side)
            network.eval()(torch.zeros(1, channels, side, side))
        return counter.get_total_flops()

    with torch.random.fork_rng(devices=[]):
        try:
            return count("meta")  # shapes alone
        except (RuntimeError, NotImplementedError):  # a network of a user may look at its numbers
            return count("cpu")


def cut(trainings: Trainings, indices: Sequence[int], *, rates: int, petaflop: float | None) -> list[tuple[int, ...]]:
    """The learning rates of a cell in as few tasks of even length as the limits of a task allow, at least one per task.

    A cut follows from the configuration of its cell alone: it is the same whatever else is asked for, whatever is
    finished already and wherever it is computed, so that a killed task finds its half-trained block again.

    Args:
        indices: of the cell's learning rates.
        rates: most trainings of a task.
        petaflop: most work of a task (1e15 operations); None is no limit.
    """
    if petaflop is not None and (work := training_petaflop(trainings)) > 0:
        rates = min(rates, max(1, int(petaflop / work)))
    return [tuple(part.tolist()) for part in np.array_split(indices, -(-len(indices) // rates))]


class Throughput(NamedTuple):
    """Seconds of one network on one device, as its share of what is trained with it at once."""

    step_seconds: float  # of a step, whatever its batch
    example_seconds: float  # of each example in it
    evaluation_seconds: float  # of each example evaluated
    weight_bytes: int  # of one checkpoint

    def training_seconds(self, trainings: Trainings) -> float:
        """One training: every step of every epoch, and its evaluations on both sets."""
        recipe, examples = trainings.recipe, trainings.examples
        batches = [len(batch) for batch in recipe.batches(0, examples)]
        evaluations = len(recipe.evaluated_epochs()) * (examples + trainings.data.test_examples)
        epoch = len(batches) * self.step_seconds + sum(batches) * self.example_seconds
        return recipe.epochs * epoch + evaluations * self.evaluation_seconds

    def measurement_seconds(self, trainings: Trainings, settings: Any) -> float:
        """One measurement, roughly: its products, each some gradients of the training set."""
        gradient = trainings.examples * self.example_seconds
        return products(settings, trainings.data.classes) * PRODUCT * gradient

    def scaled(self, work: float, weight_bytes: int) -> Throughput:
        """Of a network that takes `work` times as many operations."""
        step, example, evaluation = (work * seconds for seconds in self[:3])
        return Throughput(step, example, evaluation, weight_bytes)


def weight_bytes(trainings: Trainings) -> int:
    """Of one checkpoint of a cell's network."""
    of = trainings.data
    with torch.random.fork_rng(devices=[]):
        network = trainings.model.build(channels=of.channels, classes=of.classes, side=of.side)
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def calibrate(
    trainings: Trainings, build: Callable[[], nn.Module], device: str, *, rates: int, seconds: float
) -> Throughput:
    """Measure the network of a cell on a device, for some three times `seconds`.

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
    weights = sum(tensor.nbytes for tensor in initial.state_dict().values())
    return Throughput(max(0.0, at_large - slope * large), slope, evaluation, weights)


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

    One call that takes three times as long is not repeated: what warming up costs is little beside it.
    """
    start = time.perf_counter()
    once()
    if (alone := time.perf_counter() - start) > 3 * at_least:
        return alone
    start, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - start < at_least:
        once()
        calls += 1
    return (time.perf_counter() - start) / calls
