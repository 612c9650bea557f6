"""Curvature over the epochs of a training, as `repro.Tracker` measures it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.style import COLORS, COLUMN, label_panels, subplots, theme


def draw_tracking(table: pd.DataFrame) -> Figure:
    """Outliers, trace with twice its standard error, and class overlap by epoch, from `Tracker.frame()`.

    Without a class overlap there are two panels.
    """
    with theme():
        overlap = "class_overlap" in table and table["class_overlap"].notna().any()
        columns = 3 if overlap else 2
        figure, axes = subplots(1, columns, width=COLUMN * columns * 0.7, sharex=True)
        _outliers(axes[0, 0], table)
        _trace(axes[0, 1], table)
        if overlap:
            _overlap(axes[0, 2], table)
        for ax in axes[0]:
            ax.set_xlabel("epoch")
        label_panels(axes[0])
    return figure


def _outliers(ax: Axes, table: pd.DataFrame) -> None:
    """The largest as a line, the others as dots."""
    color, rest = COLORS["hessian"], table.filter(regex="^outlier_").iloc[:, 1:]
    if rest.shape[1]:
        ax.plot(table["epoch"], rest, ".", color=color, alpha=0.5, markersize=2)
    ax.plot(table["epoch"], table["sharpness"], "o-", color=color, markersize=2)
    ax.set_ylim(*_limits(table["sharpness"], rest))
    ax.set_title("largest eigenvalues of Hess", fontsize="small")


def _trace(ax: Axes, table: pd.DataFrame) -> None:
    trace, error = table["trace"], 2 * table["trace_error"]
    ax.fill_between(table["epoch"], trace - error, trace + error, color=COLORS["hessian"], alpha=0.25, linewidth=0)
    ax.plot(table["epoch"], trace, "o-", color=COLORS["hessian"], markersize=2)
    ax.set_title("trace of Hess", fontsize="small")


def _overlap(ax: Axes, table: pd.DataFrame) -> None:
    ax.plot(table["epoch"], table["class_overlap"], "o-", color=COLORS["class"], markersize=2)
    ax.set_ylim(-0.03, 1.03)
    ax.set_title("overlap with span{$g_c$}", fontsize="small")


def _limits(sharpness: pd.Series, rest: pd.DataFrame) -> tuple[float, float]:
    values = np.concatenate([sharpness.to_numpy(), rest.to_numpy().ravel(), [0.0]])
    low, high = np.nanmin(values), np.nanmax(values)
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room
