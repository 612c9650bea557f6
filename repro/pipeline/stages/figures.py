"""Figures: draw one figure from stored results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from repro.pipeline.stages.select import mend_tables
from repro.pipeline.tasks import Task
from repro.storage.results import Cell


@dataclass(frozen=True, kw_only=True)
class Draw(Task):
    """A figure, by its number, of some cells of the experiment; drawn anew only where something has changed."""

    stage: ClassVar[str] = "figures"

    experiment: str
    figure: str
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        return self.figure

    def run(self, device: str) -> None:
        from repro.figures import draw

        mend_tables(self.root)
        draw(self.root, self.figure, self.cells, self.experiment, force=self.force)
