"""Select: one table of all runs, and the best run of each cell (Papyan 2020, Appendix D)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from repro.pipeline.selection import check_complete, select
from repro.pipeline.tasks import Task
from repro.storage import runs
from repro.storage.results import Cell
from repro.storage.sealed import proven, stored

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("runs.csv", "selected.csv")


@dataclass(frozen=True, kw_only=True)
class Select(Task):
    """Writes runs.csv and selected.csv, of the cells asked for and of those already in the tables.

    Selecting in a part of the grid thus keeps the others.
    """

    stage: ClassVar[str] = "select"

    experiment: str
    expected: Mapping[Cell, tuple[int, ...]]  # the learning rates of each cell, by index
    missing_allowed: int  # trainings a cell may lack

    @property
    def name(self) -> str:
        return self.experiment

    def run(self, device: str) -> None:
        wanted = [(cell, index) for cell, indices in self.expected.items() for index in indices]
        found = runs.rows((cell, i, runs.run_path(self.root, cell, i)) for cell, i in wanted)
        check_complete(found, wanted, self.missing_allowed)
        others = runs.rows(of for of in in_table(self.root) if of[0] not in self.expected)
        table, selected = write_tables(self.root, [*others, *found])
        for line in runs.at_edge_of_grid(table, selected):
            print(f"caution  {line}")


def in_table(root: Path) -> list[tuple[Cell, int, Path]]:
    """The trainings that runs.csv lists; all that are stored if it is damaged or lost, none without any table."""
    if not any((root / name).exists() for name in TABLES):
        return []
    table = stored(root / "runs.csv", runs.read_table)
    if table is None:
        return runs.on_disk(root)
    listed = table[[*runs.CELL_COLUMNS, "lr_index"]].itertuples(index=False, name=None)
    pairs = [(Cell(data, model, int(n), int(seed)), int(index)) for data, model, n, seed, index in listed]
    return [(cell, index, runs.run_path(root, cell, index)) for cell, index in pairs]


def write_tables(root: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write runs.csv and selected.csv; returns them."""
    import pandas as pd

    table = pd.DataFrame(rows)
    selected = select(table)
    for name, content in zip(TABLES, (table, selected), strict=True):
        runs.write_table(root / name, content)
    return table, selected


def mend_tables(root: Path) -> None:
    """Write both tables anew from the stored trainings where one of them is damaged or lost."""
    listed = in_table(root)
    if listed and None in [stored(root / name, proven) for name in TABLES]:
        write_tables(root, runs.rows(listed))
