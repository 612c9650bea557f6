"""Results of the sweep on disk: one json file per training, and one table of them all.

    outputs/<experiment>/runs/<cell>/lr<index>.json
    outputs/<experiment>/selected/<cell>/run.json      of the selected run, trained again with checkpoints

<cell> is <data>/<model>/n<k>, with /seed<s> behind it where the seed is not 0. A run is identified by its path and the
digest of everything that decides its outcome (`repro.storage.identity.training`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.storage.files import write_json, write_sealed
from repro.storage.identity import differences, digest
from repro.storage.index import known
from repro.storage.results import Cell
from repro.storage.sealed import SEAL, DamagedError, proven, read_json, reading

if TYPE_CHECKING:
    import pandas as pd  # it takes half a second to load, and most commands read no table

CELL_COLUMNS = list(Cell._fields)  # of a table of runs
METRICS = ("diverged", "train_loss", "train_error", "test_loss", "test_error")  # after the last epoch


def run_path(root: Path, cell: Cell, lr_index: int) -> Path:
    """Where the result of one training lies below an experiment's folder `root`."""
    return root / f"runs/{cell}/lr{lr_index:03d}.json"


def selected_folder(root: Path, cell: Cell) -> Path:
    """Where the selected network of a cell is kept, below an experiment's folder."""
    return root / "selected" / str(cell)


def write_run(path: Path, identity: dict[str, Any], outcome: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Store one finished training in a file that proves its content, atomically."""
    write_json(path, {"digest": digest(identity), "config": identity, **outcome, "provenance": provenance})


def read_run(path: Path) -> dict[str, Any]:
    """Read one finished training back.

    Raises:
        FileNotFoundError: it is not stored.
        DamagedError: the file is damaged.
    """
    with reading(path):
        run = read_json(path)
        if digest(run["config"]) != run["digest"]:
            raise DamagedError(path, "its configuration does not match its digest")
        return run


def run_finished(path: Path, wanted: dict[str, Any]) -> bool:
    """Whether the training described by `wanted` is stored under `path`.

    Raises:
        ValueError: another training is stored there.
    """
    run = row(path)
    if run is None:
        return False
    if run["digest"] == digest(wanted) or not (found := differences(read_run(path)["config"], wanted)):
        return True
    raise ValueError(
        f"{path} holds a run with {'; '.join(found)}: "
        "give the experiment another name (name=...), or force=true to train it again"
    )


def row(path: Path) -> dict[str, Any] | None:
    """What a table has of one training, by the names of its columns; None where it is not stored, or damaged.

    Columns: lr, epochs, the metrics after the last epoch (diverged, and loss and error on both sets), seconds, device,
    digest, data_title, model_title.
    """
    return known(path, _read_row)


def _read_row(path: Path) -> dict[str, Any]:
    run = read_run(path)
    made = run["provenance"]
    return {
        "lr": run["config"]["lr"],
        "epochs": run["config"]["training"]["epochs"],
        **{key: run["metrics"][key] for key in METRICS},
        **{key: made[key] for key in ("seconds", "device")},
        "digest": run["digest"],
        **{key: made[key] for key in ("data_title", "model_title")},
    }


def rows(runs: Iterable[tuple[Cell, int, Path]]) -> list[dict[str, Any]]:
    """The rows of a table of runs, from (cell, learning-rate index, path) of each; those not stored are left out.

    Columns: data, model, n_per_class, seed, lr_index, then those of `row`.
    """
    found = ((cell, index, row(path)) for cell, index, path in runs)
    return [{**cell._asdict(), "lr_index": index, **of} for cell, index, of in found if of is not None]


def on_disk(root: Path) -> list[tuple[Cell, int, Path]]:
    """Every training that has a file below an experiment's folder, in the order of the grid."""
    found = []
    for path in (root / "runs").rglob("lr*.json"):
        cell = Cell.from_path(path.parent.relative_to(root / "runs"))
        if cell and (index := re.fullmatch(r"lr(\d+)\.json", path.name)):
            found.append((cell, int(index[1]), path))
    return sorted(found)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> None:
    """Write a table as csv; its last line, which begins with #, proves its content."""
    import pandas as pd

    text = pd.DataFrame(rows).to_csv(index=False)
    write_sealed(path, lambda unfinished: unfinished.write_text(f"{text}# {SEAL}\n"))


def read_table(path: Path) -> pd.DataFrame:
    """A table that `write_table` wrote; empty where there is none, as of an experiment that trains nothing.

    Raises:
        DamagedError: it is not what was written.
    """
    import pandas as pd

    if not path.exists():
        return pd.DataFrame()
    with reading(path):
        text, _, _ = proven(path).rpartition(b"\n# ")
        return pd.read_csv(io.BytesIO(text))


def by_cell(runs: pd.DataFrame) -> dict[Cell, pd.DataFrame]:
    """The rows of each cell of what `table` gives."""
    return {Cell(*cell): of_cell for cell, of_cell in runs.groupby(CELL_COLUMNS, sort=False)} if len(runs) else {}


def at_edge_of_grid(runs: pd.DataFrame, selected: pd.DataFrame) -> list[str]:
    """The selected runs whose learning rate is the highest or the lowest of those tried: a better may lie beyond.

    Args:
        runs: what `table` gives.
        selected: the selected run of each cell, with the same columns.
    """
    tried = {cell: rows.lr.tolist() for cell, rows in by_cell(runs).items()}
    named = []
    for run in selected.itertuples():
        rates = tried.get(Cell(*(getattr(run, column) for column in CELL_COLUMNS)), [])
        if len(set(rates)) > 1 and (end := {min(rates): "lowest", max(rates): "highest"}.get(run.lr)):
            where = f"{run.data_title}, {run.model_title}, {run.n_per_class} per class"
            seed = f", seed {run.seed}" if run.seed else ""
            named.append(f"{where}{seed}: the selected learning rate {run.lr:.3g} is the {end} of {len(rates)}")
    return named


def read_record(folder: Path) -> dict[str, Any]:
    """run.json of a selected network.

    Raises:
        FileNotFoundError: the selected run has not been retrained yet, or the file was damaged.
    """
    record = known(folder / "run.json", read_json)
    if record is None:
        raise FileNotFoundError(f"{folder} holds no retrained network yet; run `make retrain` first")
    return record
