"""An experiment as lists of tasks, one list per stage.

The grid is `hydra.sweeper.params` of conf/experiment/<name>.yaml, so that a plain Hydra multirun and the pipeline read
the same definition. Every list is known before anything runs, and follows from the configuration alone.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from repro.figures import PaperFigure, find_figure
from repro.measurements import find_measurement
from repro.models import Architecture
from repro.pipeline.config import CONF, Config, Shown
from repro.pipeline.grid import sample_size
from repro.pipeline.stages.figures import Draw
from repro.pipeline.stages.measure import Measure, OwnWeights
from repro.pipeline.stages.report import Report
from repro.pipeline.stages.retrain import Retrain
from repro.pipeline.stages.select import Select
from repro.pipeline.stages.sweep import Sweep
from repro.pipeline.tasks import Stages, Task
from repro.pipeline.trainings import Trainings
from repro.storage.results import Cell

AXES = ("data", "model", "n_per_class", "seed", "lr_index")


def trainings_of(config: Config) -> Trainings:
    """The trainings of the cell that a configuration describes.

    Raises:
        ValueError: the data set has not so many examples, or the network no such setting.
    """
    n_per_class = sample_size(config.n_per_class, config.data.sizes)
    config.data.check_subset(n_per_class)
    return Trainings(
        config.data,
        Architecture.from_keys(config.model),
        n_per_class,
        config.training,
        config.learning_rates,
        config.engine,
        config.stack_bytes,
    )


def sweep_task(config: Config) -> Sweep:
    """The block of trainings that a configuration of scripts/train.py describes."""
    indices = tuple(config.learning_rates.indices(config.lr_index))
    return Sweep(
        root=config.root, force=config.force, trainings=trainings_of(config), indices=indices, machine=config.machine
    )


def retrain_task(config: Config, trainings: Trainings | None = None, indices: Iterable[int] | None = None) -> Retrain:
    """A retraining as configured; by default of the configuration's cell, the best of all its learning rates."""
    trainings = trainings or trainings_of(config)
    return Retrain(
        root=config.root,
        force=config.force,
        trainings=trainings,
        indices=tuple(range(trainings.rates.count) if indices is None else indices),
        machine=config.machine,
        checkpoints=config.checkpoints,
        tolerance=config.retrain_tolerance,
        missing_allowed=config.missing_allowed,
    )


def measure_task(config: Config, measurement: str, of: Retrain | OwnWeights | None) -> Measure:
    """A measurement with the configuration's settings of it."""
    kind = find_measurement(measurement)
    return Measure(
        root=config.root,
        force=config.force,
        experiment=config.name,
        measurement=measurement,
        settings=asdict(config.measurements[measurement]),
        version=kind.version,
        usual_steps=getattr(kind.settings, "usual_steps", 10),
        of=of,
        asked_device=config.device,
    )


def measure_tasks(config: Config) -> list[Task]:
    """What `python -m repro measure` has to do: the measurement, after what has to be there first."""
    assert config.measurement is not None
    if not find_measurement(config.measurement).of_network:
        return [measure_task(config, config.measurement, None)]
    if config.weights:
        own = OwnWeights(weights=Path(config.weights), trainings=trainings_of(config), machine=config.machine)
        return [measure_task(config, config.measurement, own)]
    retrain = dataclasses.replace(retrain_task(config), force=False)
    return [retrain, measure_task(config, config.measurement, retrain)]


class Experiment:
    """An experiment's grid and its tasks.

    `overrides` are Hydra's: those of an axis of the grid (data, model, n_per_class, seed, lr_index) replace the
    experiment's values of that axis, comma-separated or as a range; all others hold for every task.

    It holds plain values alone: `repro.pipeline.remembered` keeps it, so that tasks are listed without Hydra and torch.
    """

    def __init__(self, overrides: Sequence[str] = (), conf: Path = CONF):
        from repro.pipeline.composition import Composer, values_of
        from repro.pipeline.cost import cut
        from repro.report.claims import CLAIMS

        composer = Composer(overrides, AXES, conf)
        self.config, self.experiment = composer.config, composer.experiment
        self.name, self.root, self.launch = self.config.name, self.config.root, self.config.launch
        self.narrowed = bool(composer.chosen)
        self._given = [axis for axis in Cell._fields if axis in composer.chosen]
        self.axes = {axis: values_of(axis, composer.params) for axis in AXES}
        self._cells: dict[Cell, tuple[Trainings, tuple[int, ...]]] = {}
        for data, model in itertools.product(self.axes["data"], self.axes["model"]):
            for config in composer.cells(data, model, self.axes["n_per_class"], self.axes["seed"]):
                trainings = trainings_of(config)
                chosen = (trainings.rates.indices(choice) for choice in self.axes["lr_index"])
                indices = tuple(sorted(set(itertools.chain.from_iterable(chosen))))
                if indices:
                    self._cells[trainings.cell] = trainings, indices
        if not self._cells:
            raise ValueError(f"experiment {self.name} has an empty axis: {self.axes}")
        self._names = {cell: _names(cell, trainings) for cell, (trainings, _) in self._cells.items()}
        most, work = self.launch.rates_per_task, self.launch.petaflop_per_task
        self._blocks = {cell: cut(*of, rates=most, petaflop=work) for cell, of in self._cells.items()}
        self._figures = {find_figure(key).number: shown for key, shown in self.config.figures.items()}
        self._drawn_from = {key: _Sources.of(find_figure(key)) for key in self._figures}
        names = {name for sources in self._drawn_from.values() for name in sources.names}
        self._of_network = {name: find_measurement(name).of_network for name in names}
        self._claimed = {claim.measurement for claim in CLAIMS}
        self._measure = {name: measure_task(self.config, name, None) for name in names}
        exact = self.config.measurements["exact_spectrum"]
        self._exact = {c for c, (of, _) in self._cells.items() if exact.serves(of.examples, of.data.classes)}
        self.config = dataclasses.replace(self.config, measurements={})  # they are in the tasks

    def cells(self) -> dict[Cell, Trainings]:
        """Every cell of the grid with its trainings."""
        return {cell: trainings for cell, (trainings, _) in self._cells.items()}

    def figure_cells(self, key: str, *, alone: bool = False) -> list[Cell]:
        """The cells that a figure shows in this experiment; none for a figure of measurements of no network.

        Of the seeds of a network it shows the first, unless the experiment lists the figure's seeds.

        Args:
            alone: it is the one figure that is asked for; what the command line gives of the grid's axes then takes
                the place of what the experiment lists for the figure.

        Raises:
            ValueError: the experiment does not draw that figure, or names cells that are not in the grid.
        """
        cells = self._cells_of_all_seeds(key, alone=alone)
        if self._shown(key, alone).seed is not None:
            return cells
        first = {cell[:3]: cell for cell in sorted(cells, key=lambda cell: cell.seed, reverse=True)}
        return [cell for cell in cells if cell == first[cell[:3]]]

    def _cells_of_all_seeds(self, key: str, *, alone: bool = False) -> list[Cell]:
        """Those that are measured for a figure: the claims of the report take every seed."""
        shown = self._shown(key, alone)
        measurements = self._sources(key).measurements
        if measurements and not any(self._of_network[name] for name in measurements):
            return []
        if not (chosen := self._matching(shown)):
            raise ValueError(
                f"no cell of experiment {self.name} matches figure {key}: {_described(shown)}; "
                f"figures.{find_figure(key).number}.<axis>=[...] gives it others"
            )
        return chosen

    def _shown(self, key: str, alone: bool) -> Shown:
        """What the experiment lists for a figure, or the command line in its place."""
        number = find_figure(key).number
        if number not in self._figures:
            raise ValueError(f"experiment {self.name} does not draw figure {key}; it draws {', '.join(self._figures)}")
        given: dict[str, Any] = dict.fromkeys(self._given if alone else ())  # None: all that the grid is narrowed to
        return dataclasses.replace(self._figures[number], **given)

    def _matching(self, shown: Shown) -> list[Cell]:
        """The cells that are to be shown, in the order in which the values of an axis are listed.

        Raises:
            ValueError: no cell of the whole grid has one of the values.
        """
        wanted = {axis: list(map(str, values)) for axis, values in vars(shown).items() if values is not None}
        names = self._names
        for axis, values in wanted.items():
            if not self.narrowed and (unknown := set(values).difference(*(of[axis] for of in names.values()))):
                raise ValueError(
                    f"figures: no cell of experiment {self.name} has {axis}={sorted(unknown)[0]}; there are "
                    f"{', '.join(dict.fromkeys(str(getattr(cell, axis)) for cell in names))}"
                )
        chosen = [cell for cell, of in names.items() if all(of[axis] & set(values) for axis, values in wanted.items())]

        def places(cell: Cell) -> list[int]:
            return [
                next(i for i, value in enumerate(values) if value in names[cell][axis])
                for axis, values in wanted.items()
            ]

        return sorted(chosen, key=places)

    def _drawable(self) -> list[str]:
        """The experiment's figures; of a grid narrowed on the command line only those that have cells left."""
        if not self.narrowed:
            return list(self._figures)
        return [key for key, shown in self._figures.items() if self._matching(shown)]

    def left_out(self) -> list[str]:
        """One sentence for each figure that shows none of the cells that the command line has left of the grid."""
        drawable = self._drawable()
        return [
            f"figure {key} is left out: its cells ({_described(shown)}) are not among those asked for; "
            f"figures.{key}.<axis>=[...] gives it others"
            for key, shown in self._figures.items()
            if key not in drawable
        ]

    def stages(self, keys: Iterable[str] | None = None) -> Stages:
        """The tasks of every stage: of the whole experiment, or only those that the figures `keys` need.

        What the claims of the report take is measured of every seed, and whatever else of the seeds that figures show.

        Figures that are asked for by `keys` show the cells that the command line gives, in files named by them.
        """
        whole = keys is None
        wanted = self._drawable() if keys is None else [find_figure(key).number for key in keys]
        drawn = {key: self.figure_cells(key, alone=not whole) for key in wanted}
        of_all_seeds = {key: self._cells_of_all_seeds(key) if whole else of for key, of in drawn.items()}
        measure = self._measure_tasks(drawn, of_all_seeds)
        measured = {task.of.trainings.cell for task in measure if isinstance(task.of, Retrain)}
        shown = measured.union(*drawn.values())
        cells = list(self._cells) if whole else [cell for cell in self._cells if cell in shown]
        return {
            "sweep": [task for cell in cells for task in self._sweep_tasks(cell)],
            "select": [self._select_task(cells)] if cells else [],
            "retrain": [self._retrain_task(cell) for cell in cells if cell in measured],
            "measure": list(measure),
            "figures": [self._draw_task(key, of, "" if whole else self._label(of)) for key, of in drawn.items()],
            "report": [self._report_task(drawn)] if whole else [],
        }

    def _sweep_tasks(self, cell: Cell) -> list[Sweep]:
        """The trainings of a cell, as many per task as the launcher wants."""
        common: dict[str, Any] = {"root": self.root, "force": self.config.force, "machine": self.config.machine}
        return [Sweep(trainings=self._cells[cell][0], indices=part, **common) for part in self._blocks[cell]]

    def _select_task(self, cells: Iterable[Cell]) -> Select:
        return Select(
            root=self.root,
            experiment=self.name,
            expected={cell: self._cells[cell][1] for cell in cells},
            missing_allowed=self.config.missing_allowed,
        )

    def _retrain_task(self, cell: Cell) -> Retrain:
        return retrain_task(self.config, *self._cells[cell])

    def _measure_tasks(
        self, drawn: Mapping[str, Iterable[Cell]], of_all_seeds: Mapping[str, Iterable[Cell]]
    ) -> list[Measure]:
        """What figures of the cells `drawn` need, each once; what claims take, of all seeds of these cells."""
        tasks: dict[str, Measure] = {}

        def add(measurement: str, networks: Iterable[Retrain | None]) -> None:
            for of in networks:
                task = dataclasses.replace(self._measure[measurement], of=of)
                tasks[task.name] = task

        for key, cells in drawn.items():
            sources = self._sources(key)
            for measurement in sources.measurements:
                if not self._of_network[measurement]:
                    add(measurement, [None])
                    continue
                add(measurement, map(self._retrain_task, of_all_seeds[key] if measurement in self._claimed else cells))
            if sources.fallback:  # where a cell is too large for the exact spectrum of G
                add(sources.fallback, (self._retrain_task(c) for c in of_all_seeds[key] if c not in self._exact))
        return list(tasks.values())

    def _sources(self, key: str) -> _Sources:
        return self._drawn_from[find_figure(key).number]

    def _draw_task(self, key: str, cells: Iterable[Cell], label: str) -> Draw:
        common: dict[str, Any] = {"root": self.root, "force": self.config.force, "experiment": self.name}
        return Draw(figure=key, cells=tuple(cells), label=label, **common)

    def _label(self, cells: Iterable[Cell]) -> str:
        """What tells a figure of these cells from the experiment's own: mlp-n26, by the axes given for it."""
        prefixes = {"n_per_class": "n", "seed": "seed"}
        values = {axis: dict.fromkeys(getattr(cell, axis) for cell in cells) for axis in self._given}
        parts = ("+".join(f"{prefixes.get(axis, '')}{value}" for value in of) for axis, of in values.items())
        return "-".join(filter(None, parts)).replace(".", "_")  # what follows a dot would be the file's suffix

    def _report_task(self, shown: Mapping[str, Iterable[Cell]]) -> Report:
        figures = {key: tuple(cells) for key, cells in shown.items()}
        return Report(root=self.root, experiment=self.name, figures=figures, cells=self.cells())

    def gallery_page(self) -> Path:
        """The Markdown page that `make gallery` fills.

        Raises:
            ValueError: the experiment has none, or the grid is narrowed, so that figures would be missing on it.
        """
        if not self.config.gallery:
            raise ValueError(f"experiment {self.name} has no gallery; give it one with gallery=<page>.md")
        if self.narrowed:
            raise ValueError("the gallery shows the whole experiment; leave out the values of the grid's axes")
        return Path(self.config.gallery)


class _Sources(NamedTuple):
    """The measurements that a figure is drawn from."""

    measurements: tuple[str, ...]
    fallback: str | None

    @classmethod
    def of(cls, figure: PaperFigure) -> _Sources:
        return cls(figure.measurements, figure.fallback)

    @property
    def names(self) -> list[str]:
        return [name for name in (*self.measurements, self.fallback) if name]


def _names(cell: Cell, trainings: Trainings) -> dict[str, set[str]]:
    """What a cell's coordinates may be called."""
    sizes = {f"size{k}" for k, n in enumerate(trainings.data.sizes) if n == cell.n_per_class}
    return {axis: {str(value)} | (sizes if axis == "n_per_class" else set()) for axis, value in cell._asdict().items()}


def _described(shown: Shown) -> str:
    return ", ".join(f"{axis}={values}" for axis, values in vars(shown).items() if values is not None) or "any"
