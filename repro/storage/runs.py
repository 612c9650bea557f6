"""Results of the sweep on disk: one json file a training, and one table of them all.

    outputs/<experiment>/runs/<data>/<model>/n<k>/lr<index>.json
    outputs/<experiment>/selected/<data>/<model>/n<k>/run.json      of the selected run, trained again with checkpoints

A run is identified by its path and by the digest of everything that decides its outcome (`identity`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from repro.storage.files import digest, write_json
from repro.storage.results import Cell

ALGORITHM = 1  # raise it by hand when a change of the code changes the numbers of a training


def cell_of(config: Mapping[str, Any]) -> Cell:
    """The cell of the grid that a resolved configuration belongs to."""
    return Cell(config["data"]["name"], config["model"]["name"].replace(":", "."), config["n_per_class"])


def identity(config: Mapping[str, Any], lr_index: int, lr: float) -> dict[str, Any]:
    """All that decides the outcome of one training; paths, devices and packing are not in it."""
    data = {key: value for key, value in config["data"].items() if key != "sizes"}
    return {
        "algorithm": ALGORITHM,
        "data": data,
        "model": config["model"],
        "n_per_class": config["n_per_class"],
        "lr_index": lr_index,
        "lr": lr,
        "training": config["training"],
    }


def run_path(root: Path, cell: Cell, lr_index: int) -> Path:
    """Where the result of one training lies below an experiment's folder `root`."""
    return root / "runs" / str(cell) / f"lr{lr_index:03d}.json"


def selected_folder(root: Path, cell: Cell) -> Path:
    """Where the selected network of a cell is kept, below an experiment's folder."""
    return root / "selected" / str(cell)


def write_run(path: Path, identity: dict[str, Any], outcome: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Store one finished training, atomically."""
    write_json(path, {"digest": digest(identity), "config": identity, **outcome, "provenance": provenance})


def read_run(path: Path) -> dict[str, Any]:
    """Read one finished training back.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        run = json.loads(path.read_text())
        if digest(run["config"]) != run["digest"]:
            raise ValueError("its configuration does not match its digest")
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, the next sweep trains it again") from error
    return run


def run_finished(path: Path, wanted: dict[str, Any]) -> bool:
    """Whether the training described by `wanted` is stored under `path`.

    Raises:
        ValueError: another training is stored there.
    """
    if not path.exists():
        return False
    run = read_run(path)
    if run["digest"] == digest(wanted) or not (found := differences(run["config"], wanted)):
        return True
    raise ValueError(
        f"{path} holds a run with {'; '.join(found)}: "
        "give the experiment another name (name=...), or force=true to train it again"
    )


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Each setting that differs by more than rounding, as 'key = stored value, asked for value'."""
    found = []
    for key in sorted(set(stored) | set(wanted)):
        a, b = stored.get(key), wanted.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b and not (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-10)):
            found.append(f"{prefix}{key} = {a!r}, asked for {b!r}")
    return found


def table(runs: Iterable[tuple[Cell, int, Path]]) -> pd.DataFrame:
    """One row a training, from (cell, learning-rate index, path) of each; those not stored yet are left out."""
    rows = []
    for cell, lr_index, path in runs:
        if path.exists():
            run = read_run(path)
            rows.append(
                {
                    **cell._asdict(),
                    "lr_index": lr_index,
                    "lr": run["config"]["lr"],
                    "epochs": run["config"]["training"]["epochs"],
                    **run["metrics"],
                    "seconds": run["provenance"]["seconds"],
                    "device": run["provenance"]["device"],
                    "digest": run["digest"],
                }
            )
    return pd.DataFrame(rows)


def read_record(folder: Path) -> dict[str, Any]:
    """run.json of a selected network.

    Raises:
        FileNotFoundError: the selected run has not been retrained yet.
    """
    try:
        return json.loads((folder / "run.json").read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no retrained network yet; run `make retrain` first") from None
    except ValueError as error:
        raise ValueError(f"{folder / 'run.json'} is damaged ({error}); delete it and retrain") from error
