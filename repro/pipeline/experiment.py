"""An experiment as lists of tasks, one list a stage; with scripts/ the only place that knows Hydra.

The grid is `hydra.sweeper.params` of conf/experiment/<name>.yaml, so that a plain Hydra multirun and the pipeline read
the same definition. Every list is known before anything runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from repro.figures import find_figure
from repro.pipeline.blocks import cut
from repro.pipeline.grid import learning_rate_indices, sample_size
from repro.pipeline.launch.local import gpus
from repro.pipeline.tasks import Task
from repro.storage import runs
from repro.storage.results import Cell

RATES_PER_GPU_TASK = 25  # what a GPU trains at once, memory permitting; a core trains one after the other
AXES = ("data", "model", "n_per_class", "lr_index")
CONF = Path(__file__).resolve().parent.parent.parent / "conf"


def _below(outputs: str, name: str) -> str:
    """The folder of an experiment; part of the configuration, as Hydra makes it before any script begins."""
    parts = Path(str(name)).parts
    if not parts or ".." in parts or Path(str(name)).is_absolute():
        raise ValueError(
            f"name={name} would be no folder below {outputs}; name the experiment without .. and leading /"
        )
    return f"{outputs}/{name}"


OmegaConf.register_new_resolver("below", _below, replace=True)


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain json, with the sample size and the learning-rate indices written out.

    Raises:
        ValueError: a value is missing or refers to what is not there.
    """
    try:
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].removeprefix("ValueError raised while resolving interpolation: ")
        raise ValueError(f"configuration: {reason} (key {error.full_key})") from error
    assert isinstance(config, dict)
    if "site" in config:
        first = "`# @package _global_`"
        raise ValueError(f"conf/site/local.yaml lacks the first line {first}, without which none of it holds; add it")
    for only_for_planning in ("rates_of", "epochs_of", "figures", "measurements", "gallery"):
        config.pop(only_for_planning, None)
    config["n_per_class"] = sample_size(config["n_per_class"], config["data"]["sizes"])
    config["lr_indices"] = learning_rate_indices(config.pop("lr_index"), config["learning_rates"]["count"])
    return config  # type: ignore[return-value]


class Experiment:
    """An experiment's grid and its tasks.

    `overrides` are Hydra's: those of an axis of the grid (data, model, n_per_class, lr_index) replace the experiment's
    values of that axis, comma-separated or as a range; all others hold for every task.
    """

    def __init__(self, overrides: Sequence[str] = (), conf: Path = CONF):
        self._conf = conf
        parsed = _parse(overrides)
        self._common = [line for o, line in zip(parsed, overrides, strict=True) if o.key_or_group not in AXES]
        chosen = {o.key_or_group: line for o, line in zip(parsed, overrides, strict=True) if o.key_or_group in AXES}
        composed = self._compose(self._common)
        self._params = dict(composed.hydra.sweeper.params or {})
        self._params |= {axis: line.partition("=")[2] for axis, line in chosen.items()}
        self._narrowed = bool(chosen)
        self.axes = {axis: _values(axis, self._params) for axis in AXES}
        OmegaConf.set_struct(composed, False)
        self.launch: dict[str, Any] = OmegaConf.to_container(composed.launch, resolve=True)  # type: ignore[assignment]
        self.name: str = composed.name
        self._cells = self._expand()
        self.root = Path(composed.root)
        self._gallery: str | None = None if self._narrowed else composed.gallery  # it shows every figure
        self._figures: dict[str, Any] = {str(key): cells for key, cells in composed.get("figures", {}).items()}

    def _compose(self, overrides: Sequence[str], config_name: str = "train") -> DictConfig:
        try:
            with initialize_config_dir(str(self._conf), version_base="1.3"):
                return compose(config_name, overrides=list(overrides), return_hydra_config=True)
        except (HydraException, YAMLError) as error:
            raise ValueError(f"configuration: {' '.join(str(error).split())}") from error

    def _expand(self) -> dict[Cell, dict[str, Any]]:
        """Every cell of the grid with its resolved configuration; `lr_indices` are all that the grid has of it."""
        cells: dict[Cell, dict[str, Any]] = {}
        for data, model in itertools.product(self.axes["data"], self.axes["model"]):
            cfg = self._compose([*self._common, f"data={data}", f"model={model}"])
            OmegaConf.set_struct(cfg, False)
            del cfg["hydra"]
            for n in self.axes["n_per_class"]:
                cfg.n_per_class = n
                config = resolve(cfg)
                count = config["learning_rates"]["count"]
                chosen = (learning_rate_indices(choice, count) for choice in self.axes["lr_index"])
                if indices := sorted(set(itertools.chain.from_iterable(chosen))):
                    cells[runs.cell_of(config)] = {**config, "lr_indices": indices}
        if not cells:
            raise ValueError(f"experiment {self.name} has an empty axis: {self.axes}")
        return cells

    def cells(self) -> dict[Cell, dict[str, Any]]:
        """Every cell of the grid with its configuration; `lr_indices` are all of the cell's."""
        return self._cells

    def figure_cells(self, key: str) -> list[Cell]:
        """The cells that a figure shows in this experiment.

        Raises:
            ValueError: the experiment does not draw that figure, or names cells that are not in the grid.
        """
        if key not in self._figures:
            raise ValueError(f"experiment {self.name} does not draw figure {key}; it draws {', '.join(self._figures)}")
        if self._figures[key] is None:
            return []
        if not (chosen := self._matching(self._figures[key])):
            raise ValueError(f"no cell of experiment {self.name} matches figure {key}: {self._figures[key]}")
        return chosen

    def _matching(self, axes: Mapping[str, Iterable[Any]]) -> list[Cell]:
        """The cells whose data, model and n_per_class are among those listed; an axis left out admits all."""
        wanted = {axis: {str(value) for value in values} for axis, values in axes.items()}
        chosen = []
        for cell, config in self.cells().items():
            aliases = (f"size{k}" for k, n in enumerate(config["data"]["sizes"]) if n == cell.n_per_class)
            names = {"data": {cell.data}, "model": {cell.model}, "n_per_class": {str(cell.n_per_class), *aliases}}
            if all(names[axis] & values for axis, values in wanted.items()):
                chosen.append(cell)
        return chosen

    def _drawable(self) -> list[str]:
        """The experiment's figures; of a grid narrowed on the command line only those that have cells left."""
        if not self._narrowed:
            return list(self._figures)
        return [key for key, axes in self._figures.items() if axes is None or self._matching(axes)]

    def stages(self, keys: Iterable[str] | None = None) -> dict[str, list[Task]]:
        """The tasks of every stage: of the whole experiment, or only those that the figures `keys` need."""
        shown = {key: self.figure_cells(key) for key in (self._drawable() if keys is None else keys)}
        cells = self.cells()
        if keys is not None:
            needed = {cell for key in shown for cell in shown[key]}
            cells = {cell: config for cell, config in cells.items() if cell in needed}
        measured = {cell for key, of in shown.items() if find_figure(key).measurements for cell in of}
        tables = [[*cell, config["lr_indices"]] for cell, config in cells.items()]
        plain = {key: [list(cell) for cell in of] for key, of in shown.items()}
        base = next(iter(self.cells().values()))
        common = {"root": str(self.root), "name": self.name, "force": False, "missing_allowed": base["missing_allowed"]}
        return {
            "sweep": [_sweep_task(block) for config in cells.values() for block in self._split(config)],
            "select": [Task("select", self.name, {**common, "cells": tables})] if cells else [],
            "retrain": [Task("retrain", str(cell), cells[cell]) for cell in cells if cell in measured],
            "measure": self._measure_tasks(shown, base),
            "figures": [Task("figures", key, {**common, "figure": key, "cells": of}) for key, of in plain.items()],
            "report": [Task("report", self.name, {**common, "figures": plain, "gallery": self._gallery})]
            if keys is None
            else [],
        }

    def _split(self, config: dict[str, Any]) -> list[dict[str, Any]]:
        """The trainings of a cell, as many a task as the launcher wants."""
        rates, petaflop = self.launch["rates_per_task"], self.launch["petaflop_per_task"]
        if rates == "auto":
            rates = RATES_PER_GPU_TASK if gpus() else 1
        return [{**config, "lr_indices": part} for part in cut(config, rates=rates, petaflop=petaflop)]

    def _measure_tasks(self, shown: dict[str, list[Cell]], base: dict[str, Any]) -> list[Task]:
        cells = self.cells()
        tasks: dict[str, Task] = {}
        for key, of in shown.items():
            for measurement in find_figure(key).measurements:
                settings = self._measurement(measurement)
                for cell in of if settings["per_cell"] else [None]:
                    task = _measure_task({**(cells[cell] if cell else base), "measurement": settings})
                    tasks[task.name] = task
        return list(tasks.values())

    def _measurement(self, name: str) -> dict[str, Any]:
        cfg = self._compose([*self._common, f"measurement={name}"], "measure")
        return _measurement_settings(cfg, ())


def sweep_task(cfg: DictConfig) -> Task:
    """The block of trainings that a configuration of scripts/train.py describes."""
    return _sweep_task(resolve(cfg))


def retrain_task(cfg: DictConfig) -> Task:
    """The retraining that a configuration of scripts/retrain.py describes."""
    config = _whole_cell(cfg)
    return Task("retrain", str(runs.cell_of(config)), config)


def own_weights(arguments: Sequence[str]) -> list[str]:
    """Arguments of scripts/measure.py; with `weights=<file>` no experiment's settings hold, and results go to
    outputs/weights/<file>. `model=<module>:<function>` is then the function that builds the network, called with
    `channels`, `classes` and the settings given as `+model.<key>=...`.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if not given.get("weights"):
        return list(arguments)
    added = ["~experiment", f"name=weights/{Path(given['weights']).stem}", "training.epochs=0"]
    if ":" in given.get("model", ""):
        arguments = [argument for argument in arguments if not argument.startswith("model=")]
        added += ["~model", f"+model.name={given['model']}", "+hydra.runtime.choices.model=own"]
    return [*added, *arguments]


def measure_task(cfg: DictConfig, overrides: Sequence[str]) -> Task:
    """The measurement that a configuration of scripts/measure.py, composed with `overrides`, describes."""
    return _measure_task({**_whole_cell(cfg), "measurement": _measurement_settings(cfg, overrides)})


def _whole_cell(cfg: DictConfig) -> dict[str, Any]:
    """With all learning rates: the best of a cell, not of the block that a multirun over the grid is at."""
    config = resolve(cfg)
    return {**config, "lr_indices": list(range(config["learning_rates"]["count"]))}


def _measurement_settings(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of a measurement: its own file's, then the experiment's (`measurements`), then the command line's.

    Raises:
        ValueError: the experiment names a setting that the measurement does not have.
    """
    try:
        settings = OmegaConf.merge(cfg.measurement, cfg.measurements.get(cfg.measurement.name) or {})
    except OmegaConfBaseException as error:
        raise ValueError(f"measurements.{cfg.measurement.name}: {str(error).splitlines()[0]}") from error
    for override in _parse(overrides):
        if override.key_or_group.startswith("measurement."):
            OmegaConf.update(settings, override.key_or_group.partition(".")[2], override.value())
    return OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def _sweep_task(config: dict[str, Any]) -> Task:
    first, last = config["lr_indices"][0], config["lr_indices"][-1]
    return Task("sweep", f"{runs.cell_of(config)}/lr{first}" + (f"-{last}" if last > first else ""), config)


def _measure_task(config: dict[str, Any]) -> Task:
    measurement = config["measurement"]
    where = f"{runs.cell_of(config)}/" if measurement["per_cell"] else ""
    return Task("measure", where + measurement["name"], config)


def _parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ValueError(f"override {' '.join(overrides)}: {str(error).splitlines()[0]}") from error


def _values(axis: str, params: dict[str, Any]) -> list[str]:
    """The values of one axis, from '10,13', 'range(0,8)' or a single one."""
    if params.get(axis) in (None, ""):
        raise ValueError(
            f"the axis {axis} of the grid is empty; give it values in hydra.sweeper.params or as {axis}=..."
        )
    (override,) = _parse([f"{axis}={params[axis]}"])
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return [str(override.value())]
