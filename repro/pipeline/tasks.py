"""Pieces of work that can be run anywhere, in any order within a stage, any number of times.

The tasks of each stage are a class of their own in repro/pipeline/stages. `run` does nothing for a task that is
finished, and whether it is finished is told by files alone: results under their final names, made from the same
configuration.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from repro.pipeline.devices import find_device

log = logging.getLogger(__name__)

COMPUTED = ("sweep", "retrain", "measure")  # the stages whose results are kept; the others are cheap and made anew


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """One idempotent piece of work of a stage; a queue may pickle it."""

    stage: ClassVar[str]
    any_threads: ClassVar[bool] = False  # whether it may use idle cores; a training is repeatable with one thread alone

    root: Path  # the experiment's folder
    force: bool = False  # compute also what is finished

    @property
    @abstractmethod
    def name(self) -> str:
        """One of its own within the stage; of a task about one cell it begins with the cell."""

    @property
    def device(self) -> str:
        """The device that is asked for: auto, cpu, cuda or cuda:<number>."""
        return "cpu"

    @property
    def cost(self) -> float:
        """Rough work (1e15 floating-point operations); the order of tasks depends on it, no result does."""
        return 0.0

    def finished(self) -> bool:
        """Whether its files are there, made from the same configuration; never, for what is cheap and made anew.

        Raises:
            ValueError: a training with other settings is stored where this one would be.
        """
        return False

    @abstractmethod
    def run(self, device: str) -> None:
        """Do the work on a device ("cpu", "cuda:0"), whatever is finished, and raise what goes wrong."""


Stages = Mapping[str, Sequence[Task]]


def run(task: Task) -> None:
    """Do the task unless it is finished; raise what goes wrong."""
    if finished(task) and not task.force:
        log.info("%s %s is finished already", task.stage, task.name)
        return
    log.info("%s %s", task.stage, task.name)
    task.run(find_device(task.device))


def finished(task: Task) -> bool:
    """Whether the files of the task are there, made from the same configuration."""
    return task.finished()


def unfinished(tasks: Iterable[Task]) -> list[Task]:
    """The tasks that `run` would do something for."""
    return [task for task in tasks if task.force or not finished(task)]
