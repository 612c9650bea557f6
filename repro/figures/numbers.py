"""The numbers behind a figure, read off the finished picture: what is plotted is what is written."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from repro.figures.style import panel_letters

COLUMNS = ["panel", "title", "series", "x", "y", "value"]
LARGEST_MATRIX = 20_000  # entries; a larger heat map is left out, its result file holds it


def drawn_numbers(figure: Figure) -> pd.DataFrame:
    """One row a point drawn: panel, its title, series (legend label or number), x, y, and the value of heat maps.

    Lines, markers, scatters, bars and heat maps are read; shading and grid lines are not.
    """
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>" and ax.axison]
    drawn = [series for letter, ax in zip(panel_letters(), panels) for series in _of_panel(letter, ax)]
    if not drawn:
        return pd.DataFrame(columns=COLUMNS)
    *names, x, y, value = zip(*drawn)  # a table for each series would take longer than the rest of this
    points = [len(of_series) for of_series in x]
    columns = [np.repeat(np.array(name, dtype=object), points) for name in names]
    columns += map(np.concatenate, (x, y, value))
    return pd.DataFrame(dict(zip(COLUMNS, columns)))


def _of_panel(letter: str, ax: Axes) -> Iterator[tuple[str, str, str, np.ndarray, np.ndarray, np.ndarray]]:
    """Panel, title and name of each series, and its points: x, y, value."""
    for number, (label, x, y, value) in enumerate(_series(ax), start=1):
        kept = np.isfinite(y) if value is None else np.isfinite(value)
        values = np.full(len(y), np.nan) if value is None else value
        name = label if label and not label.startswith("_") else str(number)
        yield letter, ax.get_title(), name, x[kept], y[kept], values[kept]


def _series(ax: Axes) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]]:
    for line in ax.lines:
        if line.get_transform() == ax.transData:  # an axhline or axvline belongs to no data
            x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata(), dtype=float)
            yield str(line.get_label()), x, y, None
    for collection in ax.collections:
        if isinstance(collection, PathCollection):
            offsets = np.ma.getdata(collection.get_offsets())
            yield str(collection.get_label()), offsets[:, 0], offsets[:, 1], None
    if bars := [patch for patch in ax.patches if isinstance(patch, Rectangle)]:
        centres = np.array([bar.get_x() + bar.get_width() / 2 for bar in bars])
        yield "bars", centres, np.array([bar.get_height() for bar in bars]), None
    for image in ax.images:
        matrix: np.ndarray = np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)
        if matrix.ndim == 2 and matrix.size <= LARGEST_MATRIX:
            rows, columns = np.indices(matrix.shape)
            yield "entry (column x, row y)", columns.ravel(), rows.ravel(), matrix.ravel()
