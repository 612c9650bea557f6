"""What trainings and measurements cost: in floating-point operations, and in seconds once a device has been timed.

Operations cut the sweep into tasks and order what runs side by side. Seconds are their counterpart on a device: one
step of SGD on B examples takes about a + b B seconds, one evaluated example c seconds. They follow from trainings that
are finished, or from timing the network (`repro.pipeline.calibration`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from repro.pipeline.trainings import Trainings

GRADIENT = 3  # forward passes that a gradient costs: backward is twice the forward pass
PRODUCT = 3  # gradients that a product of a curvature matrix with a vector costs, of two to four


def training_petaflop(trainings: Trainings) -> float:
    """Operations (1e15) of one training of a cell."""
    return GRADIENT * trainings.network_size.flop * trainings.examples * trainings.recipe.epochs / 1e15


def measurement_petaflop(trainings: Trainings, settings: Mapping[str, Any], usual_steps: int) -> float:
    """Operations (1e15) of a measurement of a cell's network; arguments as those of `products`."""
    per_product = PRODUCT * GRADIENT * trainings.network_size.flop * trainings.examples / 1e15
    return products(settings, usual_steps, trainings.data.classes) * per_product


def products(settings: Mapping[str, Any], usual_steps: int, classes: int) -> int:
    """Products with a matrix that a measurement takes, roughly, by those of its settings that say how many.

    Args:
        usual_steps: what it takes for a spectrum where the settings leave that open.
    """
    steps = settings.get("steps") or settings.get("max_products") or max(usual_steps, 2 * classes)
    return steps * settings.get("probes", 1)


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

    def training_seconds(self, trainings: Trainings) -> float:
        """One training: every step of every epoch, and its evaluations on both sets."""
        return float(np.dot(self, _work(trainings)))

    def product_seconds(self, trainings: Trainings) -> float:
        """One product of a curvature matrix on the training set, roughly: some gradients."""
        return PRODUCT * trainings.examples * self.example_seconds

    def scaled(self, work: float) -> Throughput:
        """Of a network that takes `work` times as many operations."""
        return Throughput(*(work * seconds for seconds in self))


def _work(trainings: Trainings) -> tuple[int, int, int]:
    """Of one training of a cell: its steps, the examples they are taken on, and the examples evaluated."""
    recipe, examples = trainings.recipe, trainings.examples
    batches = recipe.batch_sizes(examples)
    evaluations = len(recipe.evaluated_epochs()) * (examples + trainings.data.test_examples)
    return recipe.epochs * len(batches), recipe.epochs * sum(batches), evaluations


def of_finished(finished: Sequence[tuple[Trainings, float]]) -> Throughput:
    """The throughput that explains best, in relative terms, what trainings of one network took.

    Seconds of a step and of an example in it are what is sought; evaluating an example is taken for its pass forward.
    Sizes that are all alike cannot tell the two apart, and then all of the time is the examples'.

    Args:
        finished: cells of the network, each with the seconds of one of its trainings.
    """
    rows = []
    for trainings, seconds in finished:
        steps, examples, evaluations = _work(trainings)
        rows.append((steps / seconds, (examples + evaluations / GRADIENT) / seconds))
    matrix, ones = np.array(rows), np.ones(len(rows))
    step, example = np.linalg.lstsq(matrix, ones, rcond=1e-6)[0] if len(rows) > 1 else (-1.0, 0.0)
    if step < 0 or example <= 0:
        step, example = 0.0, float(np.linalg.lstsq(matrix[:, 1:], ones, rcond=None)[0][0])
    return Throughput(float(step), float(example), float(example) / GRADIENT)
