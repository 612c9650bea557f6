"""One module for each kind of measurement: its VERSION, its Settings and its function `measure`.

`measure(network, settings)` returns named arrays; a measurement of no network is a function of its settings alone. One
that is not of the cross-entropy of class labels alone says so: ANY_LOSS = True.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MEASUREMENTS: tuple[str, ...] = tuple(m.name for m in pkgutil.iter_modules(__path__) if m.name != "settings")


class Measurement(NamedTuple):
    """One kind of measurement."""

    name: str  # of its module
    measure: Callable[..., dict[str, np.ndarray]]
    settings: type[Any]  # a dataclass
    version: int  # raised by hand, beside the function, when a change of the code changes its numbers
    any_loss: bool  # whether it is of networks with another loss too

    @property
    def of_network(self) -> bool:
        """Whether it measures a network; else it is a function of its settings alone."""
        return "network" in inspect.signature(self.measure).parameters


def find_measurement(name: str) -> Measurement:
    """The measurement of a name.

    Raises:
        ValueError: there is none of that name; the sentence says the nearest and all there are.
    """
    if name not in MEASUREMENTS:
        near = difflib.get_close_matches(name, MEASUREMENTS, n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"There is no measurement {name!r}.{hint} There are: {', '.join(MEASUREMENTS)}.")
    module = importlib.import_module(f"{__name__}.{name}")
    return Measurement(name, module.measure, module.Settings, module.VERSION, getattr(module, "ANY_LOSS", False))


def products() -> int:
    """How many products over all the data this process has made: with Hess, G, E, or G without some of its parts."""
    from repro.curvature.risk import RiskOperator

    return RiskOperator.counted
