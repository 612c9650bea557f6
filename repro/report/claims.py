"""The claims table: what the paper says, the number that decides it here, and on which cells it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from repro.report import claim_numbers as numbers
from repro.report.content import Table, table
from repro.report.stored import Stored
from repro.store import Result


class Claim(NamedTuple):
    """One claim of the paper as a number of one measurement and a bound on it; the bound is ours."""

    section: str  # where the paper makes it
    statement: str
    measurement: str
    number: str  # what `compute` returns, in words
    compute: Callable[[Result], float]  # raises KeyError if the result lacks what it takes
    relation: str  # ">=" or "<="
    bound: float

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.relation == ">=" else value <= self.bound


CLAIMS = (
    Claim(
        "4, Fig 3", "The training Hessian has C outliers beyond its bulk", "hessian_spectrum",
        "gap between the (C−1)-th eigenvalue and the bulk's edge, as a ratio",
        lambda r: numbers.outlier_to_bulk(r.arrays, "train_hessian"), ">=", 1.5,
    ),
    Claim(
        "4, Fig 3", "So does the test Hessian", "hessian_spectrum",
        "gap between the (C−1)-th eigenvalue and the bulk's edge, as a ratio",
        lambda r: numbers.outlier_to_bulk(r.arrays, "test_hessian"), ">=", 1.5,
    ),
    Claim(
        "5, Fig 4", "The outliers of Hess are those of G", "hessian_spectrum",
        "median relative difference of the top C−1 eigenvalues of Hess and G",
        lambda r: numbers.outlier_difference(r.arrays), "<=", 0.1,
    ),
    Claim(
        "5, Fig 4", "The bulk of Hess comes largely from E", "hessian_spectrum",
        "share of E in tr(E²) + tr(G²) without the outliers",
        lambda r: numbers.residual_share_of_bulk(r.arrays), ">=", 0.5,
    ),
)  # fmt: skip

UNITS = ["section", "claim", "number", "asked for", "found", "verdict", "not on"]


def claims_table(stored: Stored) -> Table:
    """A row a claim. Claims whose measurement has not been made are listed as not measured."""
    return table(pd.DataFrame([_row(claim, stored) for claim in CLAIMS], columns=UNITS))


def _row(claim: Claim, stored: Stored) -> list[str]:
    values = values_of(claim, stored)
    asked = f"{claim.relation.replace('>=', '≥').replace('<=', '≤')} {claim.bound:g}"
    head = [claim.section, claim.statement, claim.number, asked]
    if not values:
        return [*head, "", "not measured", ""]
    failing = [name for name, value in values.items() if not claim.holds(value)]
    verdict = "holds" if not failing else "does not hold" if len(failing) == len(values) else "holds on some"
    return [*head, _spread(list(values.values())), verdict, ", ".join(failing)]


def values_of(claim: Claim, stored: Stored) -> dict[str, float]:
    """The claim's number on each cell that has what it takes."""
    found = {}
    for result in stored.results.get(claim.measurement, []):
        try:
            value = float(claim.compute(result))
        except KeyError:  # an experiment may measure less than the claim needs
            continue
        if np.isfinite(value):
            found[str(result.cell or "no network")] = value
    return found


def _spread(values: list[float]) -> str:
    """One value, or median and range over cells."""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g} on {len(values)} cells)"
