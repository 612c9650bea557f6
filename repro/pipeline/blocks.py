"""The work of a training, and how the learning rates of a cell are cut into tasks that are neither tiny nor endless.

A cut follows from the configuration of its cell alone: it is the same whatever else is asked for, whatever is finished
already and wherever it is computed, so that a killed task finds its half-trained block again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

GIGAFLOP = {"mlp": 0.063, "vgg11": 0.343, "resnet18": 1.11, "densenet40": 0.566}  # one image forward, at full width


def training_petaflop(config: Mapping[str, Any]) -> float:
    """Floating-point operations (1e15) of one training of a resolved configuration's cell.

    Backward costs twice the forward pass, a layer the square of its width; an unknown network counts as a VGG11.
    """
    model = config["model"]
    known = model["name"] in GIGAFLOP
    forward = GIGAFLOP[model["name"]] * model.get("width", 1.0) ** 2 if known else GIGAFLOP["vgg11"]
    return 3 * forward * config["n_per_class"] * config["data"]["classes"] * config["training"]["epochs"] / 1e6


def cut(config: Mapping[str, Any], *, rates: int, petaflop: float | None) -> list[list[int]]:
    """The learning rates of a cell in as few tasks of even length as the limits of a task allow, at least one a task.

    Args:
        rates: most trainings of a task.
        petaflop: most work of a task (1e15 operations); None is no limit.

    Raises:
        ValueError: a limit admits nothing.
    """
    if rates < 1 or (petaflop is not None and petaflop <= 0):
        raise ValueError(
            "launch.rates_per_task must be at least 1 and launch.petaflop_per_task more than 0, "
            f"got {rates} and {petaflop}"
        )
    if petaflop is not None and (work := training_petaflop(config)) > 0:
        rates = min(rates, max(1, int(petaflop / work)))
    indices = config["lr_indices"]
    return [part.tolist() for part in np.array_split(indices, -(-len(indices) // rates))]
