"""Pieces of work that can be run anywhere, in any order within a stage, any number of times.

A task is plain json, so that a queue can hold it. `run` does nothing for a task that is finished, and `finished` trusts
files alone: a result under its final name with the digest that is asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repro.pipeline.grid import learning_rate
from repro.storage import results as store
from repro.storage import runs
from repro.storage.files import digest, file_digest, write_atomically, write_json
from repro.storage.results import Cell

if TYPE_CHECKING:
    from repro.training import History

log = logging.getLogger(__name__)


COMPUTED = ("sweep", "retrain", "measure")  # the stages whose results are kept; the others are cheap and made anew
MEASURING = 1  # raise it by hand when a change of the code changes the numbers of a measurement


class Task(NamedTuple):
    """One idempotent piece of work of a stage; `config` is resolved and plain json."""

    stage: str
    name: str
    config: dict[str, Any]


def run(task: Task) -> None:
    """Do the task unless it is finished; raise what goes wrong."""
    if finished(task) and not task.config["force"]:
        log.info("%s %s is finished already", task.stage, task.name)
        return
    log.info("%s %s", task.stage, task.name)
    STAGES[task.stage].run(task.config)


def unfinished(tasks: Iterable[Task]) -> list[Task]:
    """The tasks that `run` would do something for."""
    return [task for task in tasks if task.config["force"] or not finished(task)]


def finished(task: Task) -> bool:
    """Whether the files of the task are there, made from the same configuration.

    Raises:
        ValueError: a training with other settings is stored where this one would be.
    """
    return STAGES[task.stage].finished(task.config)


# Sweep: a block of learning rates of one cell -----------------------------------------------------------------------


def _identity(config: dict[str, Any], lr_index: int) -> dict[str, Any]:
    return runs.identity(config, lr_index, learning_rate(lr_index, **config["learning_rates"]))


def _run_path(config: dict[str, Any], lr_index: int) -> Path:
    return runs.run_path(Path(config["root"]), runs.cell_of(config), lr_index)


def _missing(config: dict[str, Any]) -> list[int]:
    if config["force"]:
        return list(config["lr_indices"])
    return [i for i in config["lr_indices"] if not runs.run_finished(_run_path(config, i), _identity(config, i))]


def _state_path(config: dict[str, Any]) -> Path:
    """Named by the whole block, so that it is found again whatever is stored of the block by then."""
    identities = [_identity(config, i) for i in config["lr_indices"]]
    return Path(config["root"]) / "unfinished" / f"{digest(identities)}.safetensors"


def _swept(config: dict[str, Any]) -> bool:
    """Whether the runs are stored and the state they were resumed from is gone."""
    return not _missing(config) and not _state_path(config).exists()


def _outcome(history: History) -> dict[str, Any]:
    """The metrics after the last epoch, and the history, of one training."""
    curves = {name: getattr(history, name) for name in ("train_loss", "train_error", "test_loss", "test_error")}
    metrics = {"diverged": history.diverged, **{name: curve[-1] for name, curve in curves.items()}}
    return {"metrics": metrics, "history": {"epoch": history.epochs, **curves}}


def _sweep(config: dict[str, Any]) -> None:
    from repro.storage.provenance import provenance
    from repro.trained import build, device_of, load_split
    from repro.training import Recipe, train_block

    indices, missing = config["lr_indices"], _missing(config)
    if not missing:  # killed when all was stored
        _state_path(config).unlink(missing_ok=True)
        return
    identities = [_identity(config, i) for i in indices]

    def store_run(position: int, history: History) -> None:
        path = _run_path(config, indices[position])
        made = {**provenance(device_of(config), history.seconds), "engine": history.engine}
        runs.write_run(path, identities[position], _outcome(history), made)

    train_block(
        lambda: build(config),
        load_split(config, train=True),
        load_split(config, train=False),
        [identity["lr"] for identity in identities],
        Recipe(**config["training"]),
        engine=config["engine"],
        stored=[position for position, i in enumerate(indices) if i not in missing],
        on_finished=store_run,
        checkpoint=_state_path(config),
        checkpoint_seconds=config["checkpoint_seconds"],
    )


# Select: the best run of each cell ------------------------------------------------------------------------------------


def _expected(config: dict[str, Any]) -> list[tuple[Cell, int]]:
    return [(Cell(*cell), i) for *cell, indices in config["cells"] for i in indices]


def _tabulated(root: Path, anew: set[Cell]) -> list[tuple[Cell, int, Path]]:
    """Trainings already in the table, of other cells than `anew`: selecting in a part of the grid keeps them."""
    import pandas as pd

    if not (root / "runs.csv").exists():
        return []
    rows = pd.read_csv(root / "runs.csv")[[*Cell._fields, "lr_index"]].itertuples(index=False, name=None)
    found = [(Cell(data, model, int(n)), int(i)) for data, model, n, i in rows]
    return [(cell, i, runs.run_path(root, cell, i)) for cell, i in found if cell not in anew]


def _select(config: dict[str, Any]) -> None:
    import pandas as pd

    from repro.pipeline.selection import check_complete, select

    root = Path(config["root"])
    expected = _expected(config)
    asked = [(cell, i, runs.run_path(root, cell, i)) for cell, i in expected]
    found = runs.table(asked)
    check_complete(found, expected, config["missing_allowed"])
    others = runs.table(_tabulated(root, {cell for cell, _ in expected}))
    table = pd.concat([others, found], ignore_index=True) if len(others) else found
    for name, content in (("runs.csv", table), ("selected.csv", select(table))):
        write_atomically(root / name, lambda path, content=content: content.to_csv(path, index=False))  # type: ignore[misc]


# Retrain: the selected run of one cell, with checkpoints --------------------------------------------------------------


def _selected(config: dict[str, Any]) -> dict[str, Any]:
    """The best run of the task's cell, found in the runs themselves so that cells need not wait for one another."""
    from repro.pipeline.selection import check_complete, select

    cell = runs.cell_of(config)
    table = runs.table((cell, i, _run_path(config, i)) for i in config["lr_indices"])
    check_complete(table, [(cell, i) for i in config["lr_indices"]], config["missing_allowed"])
    best = select(table).iloc[0]
    if bool(best.diverged):
        raise ValueError(f"every training of {cell} diverged; there is nothing to measure")
    path, identity = _run_path(config, int(best.lr_index)), _identity(config, int(best.lr_index))
    runs.run_finished(path, identity)  # refuses a run of other settings than those it would be trained again with
    return runs.read_run(path)


def _retrain_digest(config: dict[str, Any]) -> str:
    return digest({"run": _selected(config)["digest"], "checkpoints": config["checkpoints"]})


def _folder(config: dict[str, Any]) -> Path:
    return runs.selected_folder(Path(config["root"]), runs.cell_of(config))


def _record(config: dict[str, Any]) -> dict[str, Any]:
    return runs.read_record(_folder(config))


def _retrain_finished(config: dict[str, Any]) -> bool:
    from repro.pipeline.selection import MissingRunsError

    try:
        record, folder = _record(config), _folder(config)
        kept = all((folder / f"epoch{epoch:04d}.safetensors").exists() for epoch in record["epochs"])
        return kept and record["digest"] == _retrain_digest(config)
    except (FileNotFoundError, MissingRunsError):
        return False


def _retrain(config: dict[str, Any]) -> None:
    from repro.storage.provenance import provenance
    from repro.trained import build, device_of, load_split, save_weights
    from repro.training import Recipe, log_spaced_epochs, train_block

    best = _selected(config)
    folder = _folder(config)
    (folder / "run.json").unlink(missing_ok=True)  # from here until the end the folder is not complete
    recipe = Recipe(**config["training"])
    epochs = log_spaced_epochs(recipe.epochs, config["checkpoints"])
    start = time.perf_counter()
    (history,) = train_block(
        lambda: build(config),
        load_split(config, train=True),
        load_split(config, train=False),
        [best["config"]["lr"]],
        recipe,
        engine="sequential",
        on_checkpoint=lambda _, epoch, model: save_weights(folder / f"epoch{epoch:04d}.safetensors", model),
        checkpoint_epochs=epochs,
        checkpoint=folder / f"unfinished-{_retrain_digest(config)}.safetensors",
        checkpoint_seconds=config["checkpoint_seconds"],
    )
    swept, again = best["metrics"]["test_error"], history.test_error[-1]
    if abs(swept - again) > config["retrain_tolerance"]:
        log.warning("%s: test error %.4f in the sweep, %.4f retrained", folder, swept, again)
    record = {
        "digest": _retrain_digest(config),
        "config": best["config"],
        "epochs": epochs,
        "files": {path.name: file_digest(path) for path in sorted(folder.glob("epoch*.safetensors"))},
        "sweep_test_error": swept,
        "retrained_test_error": again,
        "within_tolerance": abs(swept - again) <= config["retrain_tolerance"],
        **_outcome(history),
        "provenance": provenance(device_of(config), time.perf_counter() - start),
    }
    write_json(folder / "run.json", record)


# Measure: one measurement of one selected network, or of none ---------------------------------------------------------


def _result_path(config: dict[str, Any]) -> Path:
    measurement = config["measurement"]
    cell = runs.cell_of(config) if measurement["per_cell"] else None
    return store.result_path(Path(config["root"]), measurement["name"], cell)


def _measurement_digest(config: dict[str, Any]) -> str:
    of = _measured(config) if config["measurement"]["per_cell"] else None
    return digest({"algorithm": MEASURING, "measurement": config["measurement"], "of": of})


def _measured(config: dict[str, Any]) -> Any:
    """What identifies the weights that are measured."""
    if weights := config.get("weights"):
        data = [config["data"], config["n_per_class"]]
        return [file_digest(Path(weights)), config["model"], data, config["training"]["weight_decay"]]
    return _record(config)["digest"]


def _measure_finished(config: dict[str, Any]) -> bool:
    path = _result_path(config)
    if not path.exists():
        return False
    if config["measurement"]["per_cell"] and not config.get("weights") and not _retrain_finished(config):
        return False
    return store.load_provenance(path).get("digest") == _measurement_digest(config)


def _measure(config: dict[str, Any]) -> None:
    from repro.measurements import find_measurement
    from repro.measurements.settings import make_settings
    from repro.storage.provenance import provenance
    from repro.trained import device_of, network_of

    given = {key: value for key, value in config["measurement"].items() if key not in ("name", "per_cell")}
    measurement = find_measurement(config["measurement"]["name"])
    settings = make_settings(measurement.settings, given, measurement.name)
    of = [network_of(config)] if measurement.of_network else []
    start = time.perf_counter()
    arrays = measurement.measure(*of, settings)
    made = {"digest": _measurement_digest(config), "measurement": config["measurement"], "experiment": config["name"]}
    if of:
        made |= {"epochs": of[0].epochs, "training": config["training"], "model": config["model"]}
    store.save_result(_result_path(config), arrays, made | provenance(device_of(config), time.perf_counter() - start))
    log.info("%s", _result_path(config))


# Figures and report ---------------------------------------------------------------------------------------------------


def _figures(config: dict[str, Any]) -> None:
    from repro.figures import draw

    draw(Path(config["root"]), config["figure"], [Cell(*cell) for cell in config["cells"]], config["name"])


def _report(config: dict[str, Any]) -> None:
    from repro.report import build
    from repro.report.gallery import write_gallery

    root, shown = Path(config["root"]), {k: [Cell(*cell) for cell in cells] for k, cells in config["figures"].items()}
    build(root, shown)
    if config["gallery"]:
        write_gallery(root, shown, Path(config["gallery"]))


class Stage(NamedTuple):
    """What the tasks of a stage do, and how one sees that they are done."""

    run: Callable[[dict[str, Any]], None]
    finished: Callable[[dict[str, Any]], bool]


def _never(config: dict[str, Any]) -> bool:
    return False  # cheap, and always made anew from what is stored


STAGES = {
    "sweep": Stage(_sweep, _swept),
    "select": Stage(_select, _never),
    "retrain": Stage(_retrain, _retrain_finished),
    "measure": Stage(_measure, _measure_finished),
    "figures": Stage(_figures, _never),
    "report": Stage(_report, _never),
}
