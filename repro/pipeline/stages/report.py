"""Report: one page about the experiment, from what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from repro.pipeline.tasks import Task
from repro.storage.results import Cell


@dataclass(frozen=True, kw_only=True)
class Report(Task):
    """The page with the experiment's figures, claims and numbers; and its gallery, if it has one."""

    stage: ClassVar[str] = "report"

    experiment: str
    figures: Mapping[str, tuple[Cell, ...]]  # the cells that each figure shows, by its number
    gallery: Path | None

    @property
    def name(self) -> str:
        return self.experiment

    def run(self, device: str) -> None:
        from repro.report import build
        from repro.report.gallery import write_gallery

        build(self.root, self.figures)
        if self.gallery:
            write_gallery(self.root, self.figures, self.gallery)
