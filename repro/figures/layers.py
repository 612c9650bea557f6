"""What the figures of layers share (Figures 7-13): one panel per layer, histograms of eigenvalues, curves by depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from repro.figures.style import label_panels, subplots
from repro.storage.results import Result

COLUMNS = 5  # layers side by side
SHOWN = 1e-8  # eigenvalues below this part of the largest one are zero to the accuracy of the samples, and not drawn


def layer_grid(
    cells: Sequence[Result],
    layers: Callable[[Result], int],
    panel: Callable[[Axes, Result, int], None],
    *,
    xlabel: str,
    ylabel: str,
    row_height: float = 1.25,
) -> Figure:
    """One panel per layer, wrapped after `COLUMNS`, one block of rows per cell; the legend stands above."""
    rows_of = [-(-layers(cell) // COLUMNS) for cell in cells]
    figure, axes = subplots(sum(rows_of), COLUMNS, row_height=row_height)
    used: list[Axes] = []
    for cell, rows, top in zip(cells, rows_of, np.cumsum([0, *rows_of])):
        block = axes[top : top + rows].ravel()
        for index, ax in enumerate(block[: layers(cell)]):
            panel(ax, cell, index)
            ax.set_ylabel(ylabel if index % COLUMNS == 0 else "")
            ax.set_xlabel(xlabel if index + COLUMNS >= layers(cell) else "")
            used.append(ax)
        for ax in block[layers(cell) :]:
            ax.set_axis_off()
        if len(cells) > 1 and cell.cell is not None:
            block[0].set_title(cell.title + "\n", loc="left", fontweight="bold")
    label_panels(used)
    handles, labels = used[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, max(1, len(labels))))
    return figure


def cells_by_panels(
    cells: Sequence[Result], panels: Sequence[Callable[[Axes, Result], None]], *, widths: Sequence[float]
) -> Figure:
    """One row per cell, one column per panel; the first row has the legends."""
    figure, axes = subplots(len(cells), len(panels), row_height=1.9)
    axes[0, 0].get_gridspec().set_width_ratios(widths)
    for row, cell in zip(axes, cells):
        for ax, panel in zip(row, panels):
            panel(ax, cell)
        if len(cells) > 1 and cell.cell is not None:
            row[0].set_title(cell.title, loc="left", fontweight="bold")
    for ax in axes[0]:
        legend_above(ax, wide=ax is axes[0, 0], titled=len(cells) > 1)
    label_panels(axes.flat)
    return figure


def legend_above(ax: Axes, *, wide: bool, titled: bool) -> None:
    """The legend over the panel, where it hides nothing: in one line if the panel is wide."""
    if labels := ax.get_legend_handles_labels()[1]:
        columns = len(labels) if wide else 1 + (len(labels) > 3)
        foot = (0.5, 1.2 if wide and titled else 1.06)
        spacing = {"borderpad": 0, "handletextpad": 0.5, "columnspacing": 1}
        ax.legend(loc="lower center", bbox_to_anchor=foot, ncols=columns, **spacing)


def histogram(
    ax: Axes,
    eigenvalues: np.ndarray,
    edges: np.ndarray,
    *,
    color: str,
    label: str,
    fill: bool = True,
) -> None:  # [D]
    """How many of the eigenvalues fall into each logarithmic bin; `fill`: as an area, else as a line."""
    counts = np.histogram(eigenvalues, edges)[0]
    centres = np.sqrt(edges[1:] * edges[:-1])
    if fill:
        ax.fill_between(edges, 0.5, np.append(counts, counts[-1]), step="post", color=color, alpha=0.3, linewidth=0)
    ax.plot(
        centres, np.where(counts > 0, counts, np.nan), drawstyle="steps-mid", color=color, label=label, linewidth=0.9
    )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0.5, max(ax.get_ylim()[1], 12 * counts.max(), 30))
    ax.xaxis.set_minor_formatter(NullFormatter())  # a small panel has no place for more than powers of ten
    label_ticks(ax.yaxis)


def label_ticks(axis: Axis) -> None:
    """Powers of ten on a logarithmic axis; where they would leave a tick or two, some numbers between them."""
    low, high = axis.get_view_interval()
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def log_edges(eigenvalues: np.ndarray, *, bins: int = 48) -> np.ndarray:  # -> [bins + 1]
    """Bin edges that hold all positive eigenvalues down to `SHOWN` times the largest one."""
    largest = eigenvalues.max()
    lowest = eigenvalues[eigenvalues > SHOWN * largest].min()
    return np.geomspace(0.5 * lowest, 3 * largest, bins + 1)


def marks(ax: Axes, eigenvalues: np.ndarray, level: float, *, color: str, label: str, marker: str = "o") -> None:  # [k]
    """Single eigenvalues as markers at a count above the histogram, which they leave free; not those left of it."""
    kept = eigenvalues[eigenvalues > ax.get_xlim()[0]]
    (points,) = ax.plot(kept, np.full(len(kept), level), marker, linestyle="", color=color, label=label, zorder=4)
    points.set(markersize=4 if marker == "|" else 2.5, markeredgewidth=0.6)


def top_by_depth(
    ax: Axes,
    series: Sequence[tuple[str, str, list[np.ndarray]]],
    *,
    count: int,
    xlabels: Sequence[str],
) -> None:  # (label, colour, per layer [D] descending)
    """The leading `count` eigenvalues of each layer as ticks, one column per series, the layers side by side.

    The axis ends below the smallest of them in layers that have more; what a narrower layer has below is not drawn.
    """
    width = 0.8 / len(series)
    for column, (label, color, spectra) in enumerate(series):
        x = np.concatenate(
            [np.full(min(count, len(s)), l + (column - (len(series) - 1) / 2) * width) for l, s in enumerate(spectra)]
        )
        y = np.concatenate([np.where(s[:count] > 0, s[:count], np.nan) for s in spectra])
        ax.plot(x, y, "_", color=color, markersize=5.5, markeredgewidth=0.8, label=label)
    drawn = [s[:count] for _, _, spectra in series for s in spectra]
    wide = [s[:count] for _, _, spectra in series for s in spectra if len(s) > count] or drawn
    lowest = np.concatenate(wide)
    ax.set_yscale("log")
    ax.set_ylim(0.5 * lowest[lowest > 0].min(), 2 * max(s[0] for s in drawn))
    label_ticks(ax.yaxis)
    ax.set_xticks(range(len(xlabels)), xlabels)
    ax.set_xlim(-0.6, len(xlabels) - 0.4)


def spectra_of(result: Result, name: str, layers: int) -> list[np.ndarray]:
    """The stored array `layer<l>_<name>` of each layer, from the input on."""
    return [result.arrays[f"layer{l}_{name}"] for l in range(layers)]
