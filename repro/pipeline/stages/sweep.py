"""Sweep: train a block of learning rates of one cell (Papyan 2020, Appendix D)."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from repro.pipeline.config import Machine
from repro.pipeline.tasks import Task
from repro.pipeline.trainings import Trainings
from repro.storage import identity, runs

if TYPE_CHECKING:
    from repro.training import History


@dataclass(frozen=True, kw_only=True)
class Sweep(Task):
    """The trainings of a cell with the learning rates `indices`; each is stored in a file of its own."""

    stage: ClassVar[str] = "sweep"

    trainings: Trainings
    indices: tuple[int, ...]
    machine: Machine

    @property
    def name(self) -> str:
        first, last = self.indices[0], self.indices[-1]
        return f"{self.trainings.cell}/lr{first}" + (f"-{last}" if last > first else "")

    @property
    def device(self) -> str:
        return self.machine.device

    @property
    def cost(self) -> float:
        from repro.pipeline.cost import training_petaflop

        return training_petaflop(self.trainings) * len(self.indices)

    def finished(self) -> bool:
        """Whether the runs are stored, and the state they were resumed from is gone."""
        return not self._missing() and not self._is_under_way()

    def run(self, device: str) -> None:
        from repro.pipeline.trained import build, load_splits
        from repro.storage.provenance import provenance
        from repro.training import train_block

        missing = list(self.indices) if self.force else self._missing()
        if not missing:  # killed when all was stored
            self._state_path().unlink(missing_ok=True)
            return
        identities = [self.trainings.identity(index) for index in self.indices]

        def store(position: int, history: History) -> None:
            made = provenance(device, history.seconds) | {"engine": history.engine} | self.trainings.titles
            runs.write_run(self._path(self.indices[position]), identities[position], outcome(history), made)

        train_block(
            lambda: build(self.trainings),
            *load_splits(self.trainings, self.machine, device),
            [identity["lr"] for identity in identities],
            self.trainings.recipe,
            engine=self.trainings.engine,
            stack_bytes=self.trainings.stack_bytes,
            stored=[position for position, index in enumerate(self.indices) if index not in missing],
            on_finished=store,
            checkpoint=self._state_path(),
            checkpoint_seconds=self.machine.checkpoint_seconds,
        )

    def _path(self, index: int) -> Path:
        return runs.run_path(self.root, self.trainings.cell, index)

    def _missing(self) -> list[int]:
        return [index for index in self.indices if not self._is_stored(index)]

    def _is_stored(self, index: int) -> bool:
        row = runs.row(self._path(index))
        if row is not None and row["digest"] == self.trainings.digests[index]:
            return True
        return runs.run_finished(self._path(index), self.trainings.identity(index))

    def _is_under_way(self) -> bool:
        """Whether its state is there. Mostly there is none at all, and the digest that names it is not needed."""
        folder = self._state_folder
        return os.path.isdir(folder) and bool(os.listdir(folder)) and self._state_path().exists()

    @property
    def _state_folder(self) -> Path:
        return self.root / "unfinished"

    def _state_path(self) -> Path:
        """Named by the whole block, so that it is found again whatever is stored of the block by then."""
        block = identity.block([self.trainings.identity(index) for index in self.indices])
        return self._state_folder / f"{block}.safetensors"


def outcome(history: History) -> dict[str, Any]:
    """The metrics after the last epoch, and the history, of one training, as they are stored."""
    curves = {name: asdict(history)[name] for name in ("train_loss", "train_error", "test_loss", "test_error")}
    metrics = {"diverged": history.diverged, **{name: curve[-1] for name, curve in curves.items()}}
    return {"metrics": metrics, "history": {"epoch": history.epochs, **curves}}
