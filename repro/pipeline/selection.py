"""The run with the best last-epoch test error of each cell is kept (Papyan 2020, Appendix D)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from repro.storage.results import Cell
from repro.storage.runs import CELL_COLUMNS

if TYPE_CHECKING:
    import pandas as pd


LOWEST = ("test_error", "test_loss")


class MissingRunsError(RuntimeError):
    """Some cells of the grid lack trainings, so that their best run is not known yet."""


def rank(run: Mapping[str, Any]) -> tuple[bool, float, float, int]:
    """What runs of a cell are ordered by, the best first.

    A diverged run, or one whose error is not a finite number, is never selected over a finite one. Ties go to the lower
    test loss, then to the larger learning-rate index (the smaller rate).
    """
    error, loss = (math.inf if run[key] is None or math.isnan(run[key]) else run[key] for key in LOWEST)
    return bool(run["diverged"]) or error == math.inf, error, loss, -run["lr_index"]


def select(runs: pd.DataFrame) -> pd.DataFrame:
    """The best run of each cell, one row each."""
    of_cells: dict[tuple[Any, ...], list[int]] = {}
    for position, cell in enumerate(runs[CELL_COLUMNS].itertuples(index=False, name=None)):
        of_cells.setdefault(cell, []).append(position)
    ranks = [rank(run) for run in runs.to_dict("records")]
    best = [min(positions, key=ranks.__getitem__) for positions in of_cells.values()]
    return runs.iloc[best].sort_values(CELL_COLUMNS).reset_index(drop=True)


def check_complete(
    runs: Iterable[Mapping[str, Any]], expected: Iterable[tuple[Cell, int]], missing_allowed: int
) -> None:
    """Refuse to select from a sweep that is not finished.

    Args:
        runs: the rows of those that are stored.

    Raises:
        MissingRunsError: a cell lacks more than `missing_allowed` of its (cell, learning-rate index) pairs, or all.
    """
    present = {(*(run[column] for column in CELL_COLUMNS), run["lr_index"]) for run in runs}
    wanted: dict[Cell, list[int]] = {}
    for cell, lr_index in expected:
        wanted.setdefault(cell, []).append(lr_index)
    complaints = []
    for cell, indices in wanted.items():
        missing = [i for i in indices if (*cell, i) not in present]
        if len(missing) > missing_allowed or len(missing) == len(indices):
            complaints.append(f"{cell} lacks {len(missing)} of {len(indices)} learning rates ({_ranges(missing)})")
    if complaints:
        more = f" and {len(complaints) - 10} more cells" if len(complaints) > 10 else ""
        raise MissingRunsError(
            f"the sweep is not finished: {'; '.join(complaints[:10])}{more}. "
            "Run the sweep again (finished runs are kept), or allow missing runs with missing_allowed=<count per cell>"
        )


def _ranges(indices: list[int]) -> str:
    """[0, 1, 2, 5] -> '0-2, 5'."""
    parts: list[list[int]] = []
    for i in indices:
        if parts and i == parts[-1][-1] + 1:
            parts[-1].append(i)
        else:
            parts.append([i])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
