"""Results of the sweep on disk: one json file per training, and one table of them all.

    outputs/<experiment>/runs/<cell>/lr<index>.json
    outputs/<experiment>/selected/<cell>/run.json      of the selected run, trained again with checkpoints

<cell> is <data>/<model>/n<k>, with /seed<s> behind it where the seed is not 0. A run is identified by its path and the
digest of everything that decides its outcome (`repro.storage.identity.training`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from repro.storage.files import write_json
from repro.storage.identity import differences, digest
from repro.storage.results import Cell

CELL_COLUMNS = list(Cell._fields)  # of a table of runs


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


def table(runs: Iterable[tuple[Cell, int, Path]]) -> pd.DataFrame:
    """One row per training, from (cell, learning-rate index, path) of each; those not stored yet are left out.

    Columns: data, model, n_per_class, seed, lr_index, lr, epochs, the metrics after the last epoch (diverged, and loss
    and error on both sets), seconds, device, digest, data_title, model_title.
    """
    rows = []
    for cell, lr_index, path in runs:
        if path.exists():
            run = read_run(path)
            made = run["provenance"]
            rows.append(
                {
                    **cell._asdict(),
                    "lr_index": lr_index,
                    "lr": run["config"]["lr"],
                    "epochs": run["config"]["training"]["epochs"],
                    **run["metrics"],
                    **{key: made[key] for key in ("seconds", "device")},
                    "digest": run["digest"],
                    **{key: made[key] for key in ("data_title", "model_title")},
                }
            )
    return pd.DataFrame(rows)


def at_edge_of_grid(runs: pd.DataFrame, selected: pd.DataFrame) -> list[str]:
    """The selected runs whose learning rate is the highest or the lowest of those tried: a better may lie beyond.

    Args:
        runs: what `table` gives.
        selected: the selected run of each cell, with the same columns.
    """
    named = []
    for run in selected.itertuples():
        tried = runs.merge(selected.loc[[run.Index], CELL_COLUMNS]).lr
        if tried.nunique() > 1 and (end := {tried.min(): "lowest", tried.max(): "highest"}.get(run.lr)):
            where = f"{run.data_title}, {run.model_title}, {run.n_per_class} per class"
            seed = f", seed {run.seed}" if run.seed else ""
            named.append(f"{where}{seed}: the selected learning rate {run.lr:.3g} is the {end} of {len(tried)}")
    return named


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
