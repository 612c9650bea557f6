"""Extra figure x1: test error against sample size, and against the learning rate (Appendix, our reading).

Upper row: the selected run of each cell. Lower rows: every run of a cell, the selected one marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, StrMethodFormatter

from repro.figures.results import Results
from repro.figures.style import PAGE, label_panels, subplots

MEASUREMENTS: tuple[str, ...] = ()
PAPER = "The run with the best test error after the last epoch is kept. That the paper shows these curves is a guess."
COLUMNS = 3  # panels in a row of the lower part
MARKERS = "osD^v<>P"
RUN = ["data", "model", "n_per_class", "lr_index"]  # the columns that name a run of the first seed


def draw(results: Results) -> Figure:
    """Error and learning rate of the selected runs against n; error against learning rate for each (data, model)."""
    _check_trained(results)
    runs, selected = _first_seed(results.runs), _first_seed(results.selected)
    lines = list(selected.groupby(["data_title", "model_title"], sort=False).groups)
    rows = 1 + -(-len(lines) // COLUMNS)
    figure, axes = subplots(rows, COLUMNS, width=PAGE, row_height=1.9)
    _selected(axes[0, 0], selected, "test_error", "test error")
    _selected(axes[0, 1], selected, "lr", "selected learning rate")
    axes[0, 0].yaxis.set_major_formatter(FuncFormatter(percent))
    axes[0, 1].set_yscale("log")
    _rate_ticks(axes[0, 1].yaxis, selected.lr)
    _legend(axes[0, 2], axes[0, 0])
    sizes = sorted(runs.n_per_class.unique())
    colors = dict(zip(sizes, sns.color_palette("viridis", len(sizes))))
    runs = runs.merge(selected[RUN], how="left", indicator="kept")  # "both": the selected run of its cell
    for ax, (data, model) in zip(axes[1:].flat, lines):
        _rates(ax, runs.query("data_title == @data and model_title == @model"), colors)
        ax.set_title(f"{data},\n{model}")
    keys = [Line2D([], [], color=color, marker=".", markersize=3, label=f"n = {n}") for n, color in colors.items()]
    figure.legend(handles=keys, loc="outside lower center", ncols=min(len(keys), 8), handlelength=1)  # of all panels
    for ax in axes[1:].flat[len(lines) :]:
        ax.set_axis_off()
    label_panels([axes[0, 0], axes[0, 1], *axes[1:].flat[: len(lines)]])
    return figure


def _first_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the first seed of each cell: those of several would be drawn as one zigzag."""
    return runs[runs.seed == runs.groupby(["data", "model", "n_per_class"]).seed.transform("min")]


def _selected(ax: Axes, selected: pd.DataFrame, column: str, label: str) -> None:
    """One curve a (data, model) over the sample size."""
    groups = selected.groupby(["data_title", "model_title"], sort=False)
    for index, ((data, model), cells) in enumerate(groups):
        cells = cells.sort_values("n_per_class")
        ax.plot(
            cells.n_per_class,
            cells[column],
            marker=MARKERS[index % len(MARKERS)],
            markersize=3.5,
            color=sns.color_palette("colorblind")[index % 10],
            label=f"{data}, {model}",
        )
    ax.set_xscale("log")
    _mark_sizes(ax, selected.n_per_class)
    ax.set_xlabel("examples per class n")
    ax.set_ylabel(label)


def _mark_sizes(ax: Axes, sizes: pd.Series) -> None:
    """The sizes themselves as ticks, at most six of them."""
    values = np.unique(sizes)
    values = values[np.unique(np.linspace(0, len(values) - 1, min(6, len(values))).round().astype(int))]
    ax.set_xticks(values, [str(v) for v in values])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()


def _legend(ax: Axes, of: Axes) -> None:
    ax.set_axis_off()
    ax.legend(*of.get_legend_handles_labels(), loc="center left", title="selected run of each cell")


def _rates(ax: Axes, runs: pd.DataFrame, colors: Mapping[int, Any]) -> None:
    """Error against learning rate, one curve per size; rates at which a run of any size diverged are shaded."""
    for n in sorted(runs.n_per_class.unique()):
        color = colors[n]
        cell = runs[(runs.n_per_class == n) & ~runs.diverged.astype(bool)].sort_values("lr")
        ax.plot(cell.lr, cell.test_error, marker=".", markersize=3, color=color)
        best = cell[cell.kept == "both"]
        ax.plot(best.lr, best.test_error, "o", markersize=6, markerfacecolor="none", markeredgecolor=color)
    _shade_diverged(ax, runs)
    ax.set_xscale("log")
    _rate_ticks(ax.xaxis, runs.lr)
    ax.yaxis.set_major_formatter(FuncFormatter(percent))
    ax.set_xlabel("learning rate")
    ax.set_ylabel("test error")


def percent(error: float, position: int | None = None) -> str:
    """A tick's label: 34%, and 33.6% where cells differ by less than a percent."""
    return f"{100 * error:.4g}%"


def _check_trained(results: Results) -> None:
    if results.runs.empty:
        raise ValueError(f"experiment {results.experiment} has no runs yet; run `make sweep` and `make select` first")


def _rate_ticks(axis: Axis, rates: pd.Series) -> None:
    """Ticks of a logarithmic axis at 1, 10, ..., and at 3, 30, ... too where rates span few decades."""
    few = rates.max() < 100 * rates.min()
    axis.set_major_locator(LogLocator(subs=(1, 3) if few else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _shade_diverged(ax: Axes, runs: pd.DataFrame) -> None:
    """A band around each rate at which a run diverged, up to half way to its neighbours."""
    rates = np.sort(runs.lr.unique())
    half = np.sqrt(rates[1] / rates[0]) if len(rates) > 1 else 1.5
    for rate in np.unique(runs.lr[runs.diverged.astype(bool)]):
        ax.axvspan(rate / half, rate * half, color="#BBBBBB", alpha=0.5, linewidth=0, zorder=0)


def caption(results: Results) -> str:
    _check_trained(results)
    seeds = "" if results.runs.seed.nunique() == 1 else " Of several seeds the first is shown."
    runs = _first_seed(results.runs)
    diverged = int(runs.diverged.astype(bool).sum())
    return (
        "Test error after the last epoch and learning rate of the selected run of each cell against the number of "
        "training examples per class; below, every run, with the selected one circled and the learning rates at which "
        f"a run diverged shaded ({diverged} of {len(runs)} runs). "
        f"Epochs: {', '.join(str(e) for e in sorted(runs.epochs.unique()))}. Experiment: {results.experiment}.{seeds}"
    )
