"""One module a kind of measurement, each with a function `measure` that returns named arrays."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

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


def check_choices(measure: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Refuse a setting that is a word, but none of those that the measurement's signature admits.

    Raises:
        ValueError: naming them.
    """
    for name, value in settings.items():
        kind = measure.__globals__.get(measure.__annotations__.get(name, ""))
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, get_args(kind)))}")
