"""Everything an experiment has stored, found on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from repro.storage.results import Cell, Result, load_result
from repro.storage.runs import read_table
from repro.storage.sealed import read_json, stored


class Stored(NamedTuple):
    """What lies below an experiment's folder; any part may be empty."""

    runs: pd.DataFrame  # one row a training
    selected: pd.DataFrame  # the best of each cell
    retrained: dict[Cell, dict[str, Any]]  # run.json of each retrained network
    results: dict[str, list[Result]]  # by measurement


def load_stored(root: Path) -> Stored:
    """Read tables, records and all measurement results below `root`, of every seed, in the order of the grid.

    Records and results that are damaged count as missing.
    """
    results: dict[str, list[Result]] = {}
    for cell, path in _by_cell(root / "results", "*.npz"):
        if (result := stored(path, partial(load_result, cell=cell))) is not None:
            results.setdefault(path.stem, []).append(result)
    records = {cell: stored(path, read_json) for cell, path in _by_cell(root / "selected", "run.json") if cell}
    whole = {cell: record for cell, record in records.items() if record is not None}
    return Stored(read_table(root / "runs.csv"), read_table(root / "selected.csv"), whole, results)


def _by_cell(folder: Path, pattern: str) -> list[tuple[Cell | None, Path]]:
    """Every file below `folder` with its cell: those of no network first, then by data, network, size and seed."""
    found = [(Cell.from_path(path.parent.relative_to(folder)), path) for path in folder.rglob(pattern)]
    return sorted(found, key=lambda pair: (pair[0] is not None, pair[0] or (), pair[1].name))
