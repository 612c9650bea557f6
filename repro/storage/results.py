"""Measurement results on disk: named arrays and where they came from (numpy and json only).

outputs/<experiment>/results/<cell>/<measurement>.npz                  of a cell of the grid, <data>/<model>/n<k>
outputs/<experiment>/results/<measurement>.npz                         of no network (synthetic checks)
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from repro.storage.files import write_sealed
from repro.storage.sealed import SEAL, proven, reading


class Cell(NamedTuple):
    """One cell of the grid: the networks that differ in their learning rate alone.

    As a path it is <data>/<model>/n<k>, with /seed<s> behind it where the seed is not 0.
    """

    data: str
    model: str
    n_per_class: int  # training examples per class
    seed: int = 0  # of the initial weights and the order of batches

    def __str__(self) -> str:
        return f"{self.data}/{self.model}/n{self.n_per_class}" + (f"/seed{self.seed}" if self.seed else "")

    @classmethod
    def from_path(cls, path: Path) -> Cell | None:
        """The cell that a folder such as <data>/<model>/n<k>/seed<s> is of; None if it is of none."""
        found = re.fullmatch(r"([^/]+)/([^/]+)/n(\d+)(?:/seed(\d+))?", path.as_posix())
        return cls(found[1], found[2], int(found[3]), int(found[4] or 0)) if found else None


class Result(NamedTuple):
    """What one measurement found: `arrays` by name, `provenance` as json."""

    cell: Cell | None  # None: a measurement of no network
    arrays: dict[str, np.ndarray]
    provenance: dict[str, Any]

    @property
    def data_title(self) -> str:
        """The data set's name for people: Fashion-MNIST (subset)."""
        return self.provenance.get("data_title", self.cell.data if self.cell else "")

    @property
    def model_title(self) -> str:
        """The network's name for people, with its width where it is not the paper's: VGG11 (width 0.125)."""
        return self.provenance.get("model_title", self.cell.model if self.cell else "")

    @property
    def title(self) -> str:
        """Fashion-MNIST (subset), VGG11 (width 0.125), 136 per class; a seed is named where it is not 0."""
        if self.cell is None:
            return "no network"
        seed = f", seed {self.cell.seed}" if self.cell.seed else ""
        return f"{self.data_title}, {self.model_title}, {self.cell.n_per_class} per class{seed}"


def result_path(root: Path, measurement: str, cell: Cell | None) -> Path:
    """Where the result of `measurement` lies below an experiment's folder `root`."""
    return root / "results" / (str(cell) if cell else "") / f"{measurement}.npz"


def save_result(
    path: Path, arrays: dict[str, np.ndarray], provenance: dict[str, Any], *, compressed: bool = True
) -> None:
    """Write arrays and provenance as one npz file that proves its content, atomically; not `compressed` is faster."""
    savez = np.savez_compressed if compressed else np.savez

    def write(unfinished: Path) -> None:
        with unfinished.open("wb") as file:
            savez(file, provenance=np.array(json.dumps(provenance)), **arrays)  # type: ignore[arg-type]
        with zipfile.ZipFile(unfinished, "a") as archive:
            archive.comment = SEAL.encode()

    write_sealed(path, write)


def load_provenance(path: Path) -> dict[str, Any]:
    """Only where a result came from; raises as `load_result` does."""
    with reading(path), np.load(io.BytesIO(proven(path)), allow_pickle=False) as file:
        return json.loads(str(file["provenance"]))


def load_result(path: Path, cell: Cell | None) -> Result:
    """Read a result back. Nothing is unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is damaged; delete it and measure again.
    """
    with reading(path), np.load(io.BytesIO(proven(path)), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
        return Result(cell, arrays, json.loads(str(arrays.pop("provenance"))))
