"""What identifies a training, a retrained network and a measurement: every digest, and what goes into it.

What decides the numbers goes in: the data, the network, the recipe, the engine, and the version of the code that
computes them, a number kept beside that code and raised by hand when a change of it changes numbers. Names for people,
facts for planning, paths, devices, memory and the packing of work into tasks stay out.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from repro.storage.results import Cell, result_path

PACKAGE = Path(__file__).resolve().parents[1]
DRAWING = ("figures", "spectra")
DRAWN_WITH = ("matplotlib", "numpy", "pandas", "scikit-learn", "seaborn")
OF_DATA = ("name", "reader", "classes", "channels", "side", "pad", "mean", "std", "subset_seed")


def digest(content: Any) -> str:
    """16 hexadecimal digits that identify a JSON-like value, whatever the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """16 hexadecimal digits that identify the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def network_and_data(
    data: Mapping[str, Any], builder: str, settings: Mapping[str, Any], n_per_class: int
) -> dict[str, Any]:
    """Which network is trained or measured on which examples.

    Args:
        data: the fields of a DataSet.
        builder, settings: of an Architecture.
    """
    return {
        "data": {key: data[key] for key in OF_DATA},
        "model": {"build": builder, **settings},
        "n_per_class": n_per_class,
    }


def training(
    of: Mapping[str, Any],
    recipe: Mapping[str, Any],
    *,
    learning_rate: float,
    engine: str,
    stack_bytes: float,
    version: int,
) -> dict[str, Any]:
    """All that decides the outcome of one training, as far as a configuration can.

    Args:
        of: what `network_and_data` gives.
        recipe: the fields of a Recipe.
        engine: as configured.
        stack_bytes: decides how many networks are trained at once; without effect on one trained alone.
        version: of `repro.training`.
    """
    stacks = {} if engine == "sequential" else {"stack_bytes": stack_bytes}
    return {**of, "training": {**recipe, "engine": engine, **stacks}, "lr": learning_rate, "version": version}


def block(trainings: Sequence[Mapping[str, Any]]) -> str:
    """The half-trained state of trainings that are one task, whatever is stored of them by then."""
    return digest(list(trainings))


def retrained(training_digest: str, epochs: Sequence[int]) -> str:
    """The selected training of a cell, trained once more and kept after these epochs."""
    return digest({"run": training_digest, "checkpoints": list(epochs)})


def own_weights(weights: Path, of: Mapping[str, Any], weight_decay: float, code: Path | None) -> str:
    """A weights file with the network, the file of code that builds it, and the data that it is measured on.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not weights.is_file():
        raise FileNotFoundError(f"there is no weights file {weights}")
    made_by = file_digest(code) if code else None
    return digest({**of, "weights": file_digest(weights), "weight_decay": weight_decay, "code": made_by})


def measurement(name: str, settings: Mapping[str, Any], version: int, network: str | None) -> str:
    """One measurement of a network, given by its digest, or of none.

    How much memory it may take is no part of it, and neither is that no classes were chosen, which was no setting once.
    """
    decisive = {key: value for key, value in settings.items() if key != "memory_bytes"}
    if decisive.get("classes", ...) is None:
        del decisive["classes"]
    return digest({"measurement": name, "settings": decisive, "version": version, "of": network})


def drawing(root: Path, figure: str, measurements: Sequence[str], cells: Sequence[Cell], experiment: str) -> str:
    """A figure: the bytes of what it is drawn from, and the code that draws it with the versions of its libraries.

    Args:
        root: the experiment's folder; a result that is not there counts as nothing.
    """
    results = [result_path(root, name, cell) for name in measurements for cell in (None, *cells)]
    inputs = [root / "runs.csv", root / "selected.csv", *results]
    return digest(
        {
            "figure": figure,
            "experiment": experiment,
            "cells": [str(cell) for cell in cells],
            "inputs": {str(path.relative_to(root)): file_digest(path) for path in inputs if path.exists()},
            "code": code_that_draws(),
        }
    )


@functools.cache
def code_that_draws() -> dict[str, str]:
    """The bytes of the packages that turn results into pictures and pages, and the versions of what they draw with."""
    files = sorted(path for package in DRAWING for path in (PACKAGE / package).rglob("*") if path.is_file())
    code = {str(path.relative_to(PACKAGE)): file_digest(path) for path in files if "__pycache__" not in path.parts}
    return {**code, **{library: version(library) for library in DRAWN_WITH}}


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Each setting that differs by more than rounding, as 'key = stored value, asked for value'."""
    found = []
    for key in sorted(set(stored) | set(wanted)):
        a, b = stored.get(key), wanted.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b and not (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-10)):
            found.append(f"{prefix}{key} = {a!r}, asked for {b!r}")
    return found
