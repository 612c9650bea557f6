"""How every figure looks: theme, sizes, the colour of each component, names, and how files are written."""

from __future__ import annotations

import logging
import string
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from repro.spectra import exact
from repro.storage.files import write_atomically

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of the fonts' own dates in every PDF

COLUMN, PAGE = 3.4, 7.0  # widths in inches of one column and of the page

# One colour a component, the same in every figure. From the palettes of Okabe and Ito and of Tol, so that the
# components that appear together stay apart for colour-blind readers (tests/figures/test_style.py).
COLORS: dict[str, str] = {
    "hessian": "#222222",
    "gauss_newton": "#0072B2",
    "residual": "#E69F00",
    **exact.COLORS,  # class, cross, within, same: the parts of G
    "global": "#AA4499",  # the global mean
    "whole": "#444444",  # H, Delta or W before anything is knocked out
    "kfac": "#E69F00",
    "cfac": "#009E73",
    "ekfac": "#CC79A7",
    "train": "#332288",
    "test": "#CC6677",
}


@contextmanager
def theme() -> Iterator[None]:
    """The house style, within this block only; the caller's matplotlib settings come back after it."""
    settings = {
        **sns.axes_style("ticks"),
        **sns.plotting_context("paper", font_scale=0.85),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": "medium",
        "axes.labelpad": 2.0,
        "figure.dpi": 200,
        "savefig.dpi": 200,
        "legend.frameon": False,
        "legend.fontsize": "small",
        "lines.linewidth": 1.1,
        "pdf.fonttype": 42,  # text stays text in the PDF
        "svg.hashsalt": "repro",
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "xtick.minor.size": 1.5,
        "ytick.minor.size": 1.5,
        "mathtext.fontset": "dejavusans",
    }
    with matplotlib.rc_context(settings):
        yield


def subplots(
    rows: int,
    columns: int,
    *,
    width: float = PAGE,
    row_height: float = 1.7,
    sharex: bool | str = False,
    sharey: bool | str = False,
) -> tuple[Figure, np.ndarray]:  # axes [rows, columns]
    """A figure without pyplot, so that drawing many leaves nothing open."""
    figure = Figure(figsize=(width, row_height * rows + 0.3), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)  # type: ignore[arg-type]


def label_panels(axes: Iterable[Axes]) -> None:
    """Write a, b, c, ... at the upper left of each panel."""
    for ax, letter in zip(axes, panel_letters()):
        ax.annotate(
            letter,
            xy=(0, 1),
            xycoords="axes fraction",
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontweight="bold",
            fontsize="medium",
        )


def panel_letters() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ..."""
    yield from string.ascii_lowercase
    for first in string.ascii_lowercase:
        yield from (first + second for second in string.ascii_lowercase)


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write `figure` as PDF and PNG (`path` without suffix), atomically; the same figure gives the same bytes."""
    # Dates and versions are left out, so that a redrawn figure only differs where its data do.
    no_dates, no_version = dict.fromkeys(("CreationDate", "ModDate", "Creator", "Producer")), {"Software": None}
    pdf, png = (path.parent / f"{path.name}.{suffix}" for suffix in ("pdf", "png"))
    with theme():  # savefig draws a figure that has a layout engine twice, the first time for the layout alone
        write_atomically(pdf, partial(FigureCanvasPdf(figure).print_pdf, metadata=no_dates))
        figure.set_layout_engine(None)  # what it found holds for the other file
        write_atomically(png, partial(figure.savefig, format="png", metadata=no_version))
    return [pdf, png]
