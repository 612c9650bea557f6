"""Published numbers beside ours, read from reference_values.csv (values and sources; nothing of ours is in it)."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

from repro.figures.style import data_name, model_name
from repro.report.content import Table, table
from repro.report.stored import Stored


def reference_values() -> pd.DataFrame:
    """One row a published number: quantity, data, model, published, source, status, and which of ours compares."""
    with (files("repro.report") / "reference_values.csv").open() as file:
        return pd.read_csv(file, keep_default_na=False)


def reference_table(stored: Stored) -> Table:
    """Published and our numbers; rows that this experiment has nothing to set beside are left out."""
    rows = []
    for reference in reference_values().itertuples():
        for ours, difference in OURS[reference.ours](stored, reference):
            where = ", ".join(part for part in (_data(reference.data), _model(reference.model)) if part)
            rows.append([reference.quantity, where, reference.published, ours, difference, reference.source])
    columns = ["quantity", "where", "published", "ours", "what differs", "source"]
    return table(pd.DataFrame(rows, columns=columns))


def _data(name: str) -> str:
    return data_name(name) if name else ""


def _model(name: str) -> str:
    return model_name(name) if name else ""
