"""Figures: draw one figure from stored results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from repro.figures import draw, figure_path, find_figure
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
    label: str = ""  # of cells other than the experiment's own, in the names of the files

    @property
    def name(self) -> str:
        return f"{self.figure}-{self.label}" if self.label else self.figure

    @property
    def path(self) -> Path:
        """The picture that is drawn; PDF and numbers lie beside it."""
        return figure_path(self.root, find_figure(self.figure), self.label).with_suffix(".png")

    def run(self, device: str) -> None:
        mend_tables(self.root)
        draw(self.root, self.figure, self.cells, self.experiment, label=self.label, force=self.force)
