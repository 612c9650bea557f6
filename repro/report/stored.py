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
    """Read tables, records and all measurement results below `root`, of every seed, in the order of the grid."""
    results: dict[str, list[Result]] = {}
    for cell, path in _by_cell(root / "results", "*.npz"):
        results.setdefault(path.stem, []).append(load_result(path, cell))
    records = {cell: json.loads(path.read_text()) for cell, path in _by_cell(root / "selected", "run.json") if cell}
    return Stored(_table(root / "runs.csv"), _table(root / "selected.csv"), records, results)


def _by_cell(folder: Path, pattern: str) -> list[tuple[Cell | None, Path]]:
    """Every file below `folder` with its cell: those of no network first, then by data, network, size and seed."""
    found = [(Cell.from_path(path.parent.relative_to(folder)), path) for path in folder.rglob(pattern)]
    return sorted(found, key=lambda pair: (pair[0] is not None, pair[0] or (), pair[1].name))


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame()
