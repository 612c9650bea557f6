"""Everything an experiment has stored, found on disk (numpy, pandas and json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from repro.storage.results import Cell, Result, load_result


class Stored(NamedTuple):
    """What lies below an experiment's folder; any part may be empty."""

    runs: pd.DataFrame  # one row a training
    selected: pd.DataFrame  # the best of each cell
    retrained: dict[Cell, dict[str, Any]]  # run.json of each retrained network
    results: dict[str, list[Result]]  # by measurement


def load_stored(root: Path) -> Stored:
    """Read tables, records and all measurement results below `root`."""
    results: dict[str, list[Result]] = {}
    for path in sorted((root / "results").rglob("*.npz"), key=_in_grid_order):
        cell = Cell.from_path(path.parent.relative_to(root / "results"))
        results.setdefault(path.stem, []).append(load_result(path, cell))
    retrained = {
        Cell.from_path(path.parent.relative_to(root / "selected")): json.loads(path.read_text())
        for path in sorted((root / "selected").rglob("run.json"), key=_in_grid_order)
    }
    return Stored(
        _table(root / "runs.csv"),
        _table(root / "selected.csv"),
        {cell: record for cell, record in retrained.items() if cell},
        results,
    )


def _in_grid_order(path: Path) -> tuple[str, str, int, str]:
    """By data, network, then size as a number."""
    size = path.parent.name.removeprefix("n")
    return str(path.parent.parent.parent), path.parent.parent.name, int(size) if size.isdigit() else 0, path.name


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame()
