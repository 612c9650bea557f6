"""Published numbers beside ours, read from reference_values.csv (values and sources; nothing of ours is in it)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import pandas as pd

from repro.report.claim_numbers import classes, overlapping
from repro.report.content import Table, table
from repro.report.stored import Stored


def reference_values() -> pd.DataFrame:
    """One row a published number: quantity, where, published, source, status, and which of ours compares."""
    with (files("repro.report") / "reference_values.csv").open() as file:
        return pd.read_csv(file, keep_default_na=False)


def reference_table(stored: Stored) -> Table:
    """Published and our numbers; rows that this experiment has nothing to set beside are left out."""
    rows = []
    for reference in reference_values().itertuples():
        kind, _, detail = reference.ours.partition(" ")
        for ours, difference in OURS[kind](stored, reference, detail):
            rows.append([reference.quantity, reference.where, reference.published, ours, difference, reference.source])
    columns = ["quantity", "where", "published", "ours", "what differs", "source"]
    return table(pd.DataFrame(rows, columns=columns))


def _parameters(stored: Stored, reference: Any, detail: str) -> Iterator[tuple[str, str]]:
    """P of the network measured on this data set; the embedded subset counts as the data set it comes from."""
    for result in stored.results.get("hessian_spectrum", []):
        cell, model = result.cell, result.provenance.get("model", {})
        if cell and cell.model == reference.model and cell.data.removesuffix("_embedded") == reference.data:
            width = model.get("width", 1)
            dim = next(int(value) for name, value in result.arrays.items() if name.endswith("_dim"))
            yield str(dim), "nothing" if width == 1 else f"our network has width {width}"
            return


def _trainings(stored: Stored, reference: Any, detail: str) -> Iterator[tuple[str, str]]:
    if len(stored.runs):
        count = len(stored.runs)
        yield str(count), "nothing" if count == int(reference.published) else "fewer data sets, sizes and rates"


def _spike(stored: Stored, reference: Any, detail: str) -> Iterator[tuple[str, str]]:
    """The `detail`-th largest eigenvalue of our sample of the matrix of Figure 15a."""
    for result in stored.results.get("synthetic_spectra", []):
        yield f"{result.arrays['spiked_exact'][-int(detail)]:.2f}", "another sample of the same random matrix"


def _outliers(stored: Stored, reference: Any, detail: str) -> Iterator[tuple[str, str]]:
    """How many eigenvectors of Hess lie by more than one half in the span of the class means, over all cells."""
    results = stored.results.get("alignment", [])
    counts = [overlapping(result.arrays, "hessian") - classes(result.arrays) for result in results]
    if counts:
        found = (
            f"C{f' − {-n}' if n < 0 else f' + {n}' if n else ''} on {counts.count(n)}" for n in sorted(set(counts))
        )
        yield f"{', '.join(found)} of {len(counts)} cells", "data and scale; counted by overlap with the class means"


# How ours is found for each `ours` of reference_values.csv: pairs of our number and what differs, none if not measured.
OURS: dict[str, Callable[[Stored, Any, str], Iterator[tuple[str, str]]]] = {
    "parameters": _parameters,
    "trainings": _trainings,
    "spike": _spike,
    "outliers": _outliers,
}
