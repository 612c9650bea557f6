"""What a figure is drawn from: stored measurements and the table of runs of one experiment (numpy and pandas)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pandas as pd

from repro.storage.results import Cell, Result, load_result, result_path
from repro.storage.runs import read_table
from repro.storage.sealed import stored


class Results:
    """Stored results of one experiment, in the order in which the experiment lists its cells.

    Attributes:
        experiment: its name.
        runs: one row a training (data, model, n_per_class, lr_index, lr, test_error, diverged, ...).
        selected: the rows of `runs` with the best test error of each cell.
    """

    def __init__(
        self, experiment: str, measured: dict[str, list[Result]], runs: pd.DataFrame, selected: pd.DataFrame
    ) -> None:
        self.experiment, self.runs, self.selected = experiment, runs, selected
        self._measured = measured

    def where(self, measurement: str) -> str:
        """Data, network, sample size and epoch of a measurement's results, and the experiment: the end of a caption."""
        cells = [_describe(result) for result in self.of(measurement) if result.cell is not None]
        return f"{'; '.join(dict.fromkeys(cells)) or 'No network is involved'}. Experiment: {self.experiment}."

    def of(self, measurement: str) -> list[Result]:
        """Results of one measurement, a result a cell; of a measurement of no network a single one.

        Raises:
            ValueError: the figure did not declare that measurement.
        """
        if measurement not in self._measured:
            declared = ", ".join(self._measured) or "none"
            raise ValueError(f"{measurement!r} is not among the measurements this figure declares ({declared})")
        return self._measured[measurement]

    @classmethod
    def load(
        cls,
        root: Path,
        measurements: Iterable[str],
        cells: Iterable[Cell],
        experiment: str | None = None,
        *,
        fallback: str | None = None,
    ) -> Results:
        """Read the results of `measurements` on `cells` below the experiment's folder `root`, by default named like it.

        Where the result of `exact_spectrum` says that a cell is too large for it, that of `fallback` takes its place.

        Raises:
            FileNotFoundError: results are missing or damaged; the sentence says which and how to get them.
            DamagedError: a table is damaged.
        """
        cells = list(cells)
        measured = {name: _of_one_measurement(root, name, cells) for name in measurements}
        if fallback and "exact_spectrum" in measured:
            measured["exact_spectrum"] = [
                result if is_exact(result) else _of_one_measurement(root, fallback, [cell])[0]
                for cell, result in zip(cells, measured["exact_spectrum"])
            ]
        return cls(experiment or root.name, measured, read_table(root / "runs.csv"), read_table(root / "selected.csv"))


def is_exact(result: Result) -> bool:
    """Whether it holds exact eigenvalues of G; else the cell was too large for them (see `exact_spectrum`)."""
    return "share_class" in result.arrays


def _of_one_measurement(root: Path, measurement: str, cells: list[Cell]) -> list[Result]:
    of_no_network = stored(result_path(root, measurement, None), partial(load_result, cell=None))
    if of_no_network is not None:
        return [of_no_network]
    found = [stored(result_path(root, measurement, cell), partial(load_result, cell=cell)) for cell in cells]
    missing = [str(cell) for cell, result in zip(cells, found, strict=True) if result is None]
    if missing or not cells:
        where = f"{measurement} is not measured yet" + (f" on {', '.join(missing)}" if missing else "")
        raise FileNotFoundError(f"{where}; `make reproduce` measures what experiment {root.name} lacks")
    return [result for result in found if result is not None]


def _describe(result: Result) -> str:
    """Fashion-MNIST (subset), VGG11 (width 0.125), 136 examples per class, epoch 40."""
    assert result.cell is not None
    epochs = result.provenance.get("epochs", [])
    parts = [
        result.data_title,
        result.model_title,
        f"{result.cell.n_per_class} examples per class",
        *([f"seed {result.cell.seed}"] if result.cell.seed else []),
        *([f"epoch {epochs[-1]}"] if epochs else []),
    ]
    return ", ".join(parts)
