"""Retrain: train the selected run of a cell once more, keeping checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from repro.pipeline.config import Machine
from repro.pipeline.selection import MissingRunsError, check_complete, rank
from repro.pipeline.stages.sweep import outcome
from repro.pipeline.tasks import Task
from repro.pipeline.trainings import Trainings
from repro.storage import identity, runs
from repro.storage.files import write_json
from repro.training import checkpoint_epochs

if TYPE_CHECKING:
    from repro.network import Network

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Retrain(Task):
    """The selected network of a cell; it is also what most measurements are of."""

    stage: ClassVar[str] = "retrain"

    trainings: Trainings
    indices: tuple[int, ...]  # of the learning rates that were tried
    machine: Machine
    checkpoints: int  # log-spaced epochs at which the network is kept, besides the initial weights
    tolerance: float  # a larger difference of test error between sweep and retraining is reported
    missing_allowed: int  # trainings a cell may lack and still be selected from

    @property
    def name(self) -> str:
        return str(self.trainings.cell)

    @property
    def device(self) -> str:
        return self.machine.device

    @property
    def cost(self) -> float:
        from repro.pipeline.cost import training_petaflop

        return training_petaflop(self.trainings)

    @property
    def folder(self) -> Path:
        """Where the checkpoints and run.json are kept."""
        return runs.selected_folder(self.root, self.trainings.cell)

    def finished(self) -> bool:
        try:
            record = runs.read_record(self.folder)
            kept = all((self.folder / f"epoch{epoch:04d}.safetensors").exists() for epoch in record["epochs"])
            return kept and record["digest"] == self._digest(self.selected_run())
        except (FileNotFoundError, MissingRunsError):
            return False

    @property
    def kept_epochs(self) -> list[int]:
        """After which epochs the network is kept."""
        return checkpoint_epochs(self.trainings.recipe.epochs, self.checkpoints)

    def digest(self) -> str:
        """What identifies the weights that are kept.

        Raises:
            FileNotFoundError: the selected run has not been retrained yet.
        """
        return runs.read_record(self.folder)["digest"]

    def network(self, device: str) -> Network:
        """The network after the last epoch with its data and checkpoints, on a device."""
        from repro.pipeline.trained import StoredCheckpoints, network_of

        checkpoints = StoredCheckpoints(self.folder, runs.read_record(self.folder), self.trainings, device)
        return network_of(checkpoints[max(checkpoints)], self.trainings, self.machine, device, checkpoints)

    def selected_run(self) -> dict[str, Any]:
        """The row of the cell's best run, found in the runs themselves so that cells need not wait for one another.

        Raises:
            MissingRunsError: the sweep of the cell is not finished.
            ValueError: all its trainings diverged, or the best was trained with other settings.
        """
        cell = self.trainings.cell
        rows = runs.rows((cell, index, runs.run_path(self.root, cell, index)) for index in self.indices)
        check_complete(rows, [(cell, index) for index in self.indices], self.missing_allowed)
        best = min(rows, key=rank)
        if best["diverged"]:
            raise ValueError(f"every training of {cell} diverged; there is nothing to measure")
        path = runs.run_path(self.root, cell, best["lr_index"])
        runs.run_finished(path, self.trainings.identity(best["lr_index"]))  # refuses a run of other settings
        return best

    def run(self, device: str) -> None:
        from repro.pipeline.trained import build, load_splits, save_weights
        from repro.storage.provenance import provenance
        from repro.training import train_block

        best, folder = self.selected_run(), self.folder
        (folder / "run.json").unlink(missing_ok=True)  # from here until the end the folder is not complete
        epochs = self.kept_epochs
        start = time.perf_counter()
        (history,) = train_block(
            lambda: build(self.trainings),
            *load_splits(self.trainings, self.machine, device),
            [best["lr"]],
            self.trainings.recipe,
            engine="sequential",
            on_checkpoint=lambda _, epoch, model: save_weights(folder / f"epoch{epoch:04d}.safetensors", model),
            checkpoint_epochs=epochs,
            checkpoint=folder / f"unfinished-{self._digest(best)}.safetensors",
            checkpoint_seconds=self.machine.checkpoint_seconds,
        )
        again = outcome(history)
        record = {
            "digest": self._digest(best),
            "config": self.trainings.identity(best["lr_index"]) | {"lr": best["lr"]},
            "epochs": epochs,
            "files": {path.name: identity.file_digest(path) for path in sorted(folder.glob("epoch*.safetensors"))},
            **self._compared(best["test_error"], again["metrics"]["test_error"]),
            **again,
            "provenance": provenance(device, time.perf_counter() - start) | self.trainings.titles,
        }
        write_json(folder / "run.json", record)

    def _digest(self, selected: Mapping[str, Any]) -> str:
        return identity.retrained(selected["digest"], self.kept_epochs)

    def _compared(self, swept: float, again: float) -> dict[str, Any]:
        """The test error in the sweep beside that of the retraining."""
        close = abs(swept - again) <= self.tolerance
        if not close:
            log.warning("%s: test error %.4f in the sweep, %.4f retrained", self.folder, swept, again)
        return {"sweep_test_error": swept, "retrained_test_error": again, "within_tolerance": close}
