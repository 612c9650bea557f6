"""One module a kind of measurement, each with a function `measure` that returns named arrays."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

MEASUREMENTS: tuple[str, ...] = tuple(module.name for module in pkgutil.iter_modules(__path__))


def find_measurement(name: str) -> Callable[..., dict[str, Any]]:
    """The function `measure` of a measurement.

    Raises:
        ValueError: there is none of that name; the sentence names the nearest and all there are.
    """
    if name not in MEASUREMENTS:
        near = difflib.get_close_matches(name, MEASUREMENTS, n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"There is no measurement {name!r}.{hint} There are: {', '.join(MEASUREMENTS)}.")
    return importlib.import_module(f"{__name__}.{name}").measure
