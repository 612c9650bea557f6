"""What an experiment has come to and what it took, and two experiments side by side, as tables for terminal and csv."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from repro.report.stored import Stored, load_stored
from repro.report.verdicts import verdicts
from repro.storage.files import write_atomically
from repro.storage.results import Cell
from repro.storage.runs import CELL_COLUMNS, by_cell

Tables = Mapping[str, pd.DataFrame]  # by name


def show(stored: Stored, cells: Collection[Cell] | None = None) -> Tables:
    """Of some cells, or all that are stored: what was selected, what is measured, and where the time went."""

    def wanted(cell: Cell | None) -> bool:
        return cells is None or cell in cells

    trained = by_cell(stored.runs)
    networks = [
        _network(stored, run, cell, trained.get(cell))
        for run in stored.selected.to_dict("records")
        if wanted(cell := Cell(*(run[column] for column in CELL_COLUMNS)))
    ]
    measured = [
        {
            **(result.cell._asdict() if result.cell else {}),
            "measurement": name,
            "seconds": result.provenance.get("seconds"),
            "products": result.provenance.get("products"),  # with Hess, G or E; older results do not tell
        }
        for name, results in sorted(stored.results.items())
        for result in results
        if wanted(result.cell)
    ]
    measurements = pd.DataFrame(measured, columns=[*CELL_COLUMNS, "measurement", "seconds", "products"])
    measurements = measurements.astype({"n_per_class": "Int64", "seed": "Int64", "products": "Int64"})
    cells_table = pd.DataFrame(networks)
    return {"cells": cells_table, "measurements": measurements, "time": _time(cells_table, measurements)}


def _network(stored: Stored, run: Mapping[str, Any], cell: Cell, of_cell: pd.DataFrame | None) -> dict[str, Any]:
    """A cell's selected run, and what all its runs, if they are known, and the retraining took."""
    retrained = stored.retrained.get(cell, {}).get("provenance", {})
    return {
        **cell._asdict(),
        **{key: run[key] for key in ("lr_index", "lr", "test_error", "epochs")},
        "trainings": None if of_cell is None else len(of_cell),
        "sweep_seconds": None if of_cell is None else of_cell.seconds.sum(),
        "retrain_seconds": retrained.get("seconds"),
    }


def _time(cells: pd.DataFrame, measurements: pd.DataFrame) -> pd.DataFrame:
    """Pieces, seconds of computing and products by stage and measurement, the longest first."""
    rows: list[dict[str, Any]] = []
    if len(cells):
        trainings, seconds = cells.trainings.dropna().sum(), cells.sweep_seconds.dropna().sum()
        retrained = cells.retrain_seconds.dropna()
        rows += [
            {"stage": "sweep", "pieces": int(trainings), "seconds": seconds},
            {"stage": "retrain", "pieces": len(retrained), "seconds": retrained.sum()},
        ]
    for name, of in measurements.groupby("measurement"):
        pieces = {"pieces": len(of), "seconds": of.seconds.sum(), "products": of.products.sum(min_count=1)}
        rows.append({"stage": f"measure {name}", **pieces})
    table = pd.DataFrame(rows, columns=["stage", "pieces", "seconds", "products"]).astype({"products": "Int64"})
    table["share"] = table.seconds / table.seconds.sum()
    return table.sort_values("seconds", ascending=False, ignore_index=True)


def compare(roots: Mapping[str, Path]) -> Tables:
    """Of two experiments by name: selected runs, largest eigenvalues of the train Hessian, verdicts on the claims."""
    of = {name: load_stored(root) for name, root in roots.items()}
    return {
        "selected": _beside({name: _selected(stored) for name, stored in of.items()}, CELL_COLUMNS),
        "outliers": _beside({name: _outliers(stored) for name, stored in of.items()}, [*CELL_COLUMNS, "k"]),
        "claims": _beside({name: _claims(stored) for name, stored in of.items()}, ["statement", "number"]),
    }


def _beside(tables: Tables, by: list[str]) -> pd.DataFrame:
    """Rows that agree in the columns `by` in one row, in the order of the first table; the other columns by name."""
    (first, left), (second, right) = tables.items()
    order = pd.concat([left[by], right[by]]).drop_duplicates()
    for name, table in ((first, left), (second, right)):
        own = {column: f"{column} {name}" for column in table if column not in by}
        order = order.merge(table.rename(columns=own), how="left", on=by)
    return order


def _selected(stored: Stored) -> pd.DataFrame:
    columns = [*CELL_COLUMNS, "lr", "test_error"]
    return stored.selected[columns] if len(stored.selected) else pd.DataFrame(columns=columns)


def _outliers(stored: Stored) -> pd.DataFrame:
    """The leading eigenvalues that are stored, k = 1 being the largest."""
    rows = [
        {**result.cell._asdict(), "k": k, "eigenvalue": value}
        for result in stored.results.get("hessian_spectrum", [])
        if result.cell
        for k, value in enumerate(sorted(result.arrays["train_hessian_eigenvalues"], reverse=True), 1)
    ]
    return pd.DataFrame(rows, columns=[*CELL_COLUMNS, "k", "eigenvalue"])


def _claims(stored: Stored) -> pd.DataFrame:
    columns = ["statement", "number", "verdict", "found"]
    found = [(v.claim, v.number, v.verdict, v.found) for v in verdicts(stored)]
    return pd.DataFrame(found, columns=columns)


def write_tables(folder: Path, prefix: str, tables: Tables) -> list[str]:
    """Write each table as <folder>/<prefix>-<name>.csv; returns them as text for a terminal, each with its path."""
    text = []
    for name, table in tables.items():
        path = folder / f"{prefix}-{name}.csv"
        write_atomically(path, lambda unfinished, table=table: table.to_csv(unfinished, index=False))  # type: ignore[misc]
        known = table.astype(object).where(table.notna(), "")  # an empty place for what is not known
        shown = known.to_string(index=False, float_format="{:.4g}".format) if len(table) else "none"
        text.append(f"{path}\n{shown}\n")
    return text
