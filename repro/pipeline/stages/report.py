"""Report: one page about the experiment, from what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from repro.pipeline.stages.select import mend_tables
from repro.pipeline.tasks import Task
from repro.pipeline.trainings import Trainings
from repro.storage.results import Cell


@dataclass(frozen=True, kw_only=True)
class Report(Task):
    """The page with the experiment's figures, claims and numbers."""

    stage: ClassVar[str] = "report"

    experiment: str
    figures: Mapping[str, tuple[Cell, ...]]  # the cells that each figure shows, by its number
    cells: Mapping[Cell, Trainings]  # of the whole grid

    @property
    def name(self) -> str:
        return self.experiment

    def run(self, device: str) -> None:
        from repro.pipeline.plan import small_last_batches
        from repro.report import build, score

        mend_tables(self.root)
        build(self.root, self.figures, small_last_batches(self.cells))
        print(f"claims: {score(self.root)}", flush=True)
