"""Select: one table of all runs, and the best run of each cell (Papyan 2020, Appendix D)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from repro.pipeline.selection import check_complete, select
from repro.pipeline.tasks import Task
from repro.storage import runs
from repro.storage.files import write_atomically
from repro.storage.results import Cell


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
        found = runs.table((cell, i, runs.run_path(self.root, cell, i)) for cell, i in wanted)
        check_complete(found, wanted, self.missing_allowed)
        others = runs.table(self._of_other_cells())
        table = pd.concat([others, found], ignore_index=True) if len(others) else found
        selected = select(table)
        for name, content in (("runs.csv", table), ("selected.csv", selected)):
            write_atomically(self.root / name, lambda path, content=content: content.to_csv(path, index=False))  # type: ignore[misc]
        for line in runs.at_edge_of_grid(table, selected):
            print(f"caution  {line}")

    def _of_other_cells(self) -> list[tuple[Cell, int, Path]]:
        """Trainings already in the table."""
        if not (self.root / "runs.csv").exists():
            return []
        rows = pd.read_csv(self.root / "runs.csv")[[*runs.CELL_COLUMNS, "lr_index"]].itertuples(index=False, name=None)
        stored = [(Cell(data, model, int(n), int(seed)), int(index)) for data, model, n, seed, index in rows]
        return [(cell, i, runs.run_path(self.root, cell, i)) for cell, i in stored if cell not in self.expected]
