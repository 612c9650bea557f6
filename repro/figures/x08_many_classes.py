"""Extra figure x8: class/cross-class structure of many classes: eigenvalues of the parts, cosines of class means."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.fig02_class_means import cosines
from repro.figures.panels import matrix_panel
from repro.figures.results import Results
from repro.figures.style import COLORS, PAGE, label_panels, subplots

MEASUREMENTS = ("class_means",)
PAPER = "The figure is ours."
SMALLEST = 1e-10  # eigenvalue over the largest that is more than rounding


def draw(results: Results) -> Figure:
    """One row per network: eigenvalues of G_class and G_cross by rank, and the cosines between class means."""
    found = results.of("class_means")
    figure, axes = subplots(len(found), 2, width=0.8 * PAGE, row_height=2.2)
    for line, result in zip(axes, found):
        _ranked(line[0], result.arrays)
        matrix_panel(line[1], cosines(result.arrays["class_means"]))
        line[1].set_title("cosines of $g_c$", fontsize="small")
        line[1].set_xlabel("class d")
        line[1].set_ylabel("class c")
        if result.cell is not None and len(found) > 1:
            line[0].set_title(result.title, fontsize="small")
    axes[0, 0].legend(loc="lower left")
    label_panels(axes.flat)
    return figure


def _ranked(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Logarithmic ranks and eigenvalues, with a mark at C; what is zero but for rounding is left out."""
    C = arrays["class_part"].size
    largest = max(arrays[f"{part}_part"].max(initial=0) for part in ("class", "cross"))
    for part in ("class", "cross"):
        values = arrays[f"{part}_part"]
        rank = np.arange(1, len(values) + 1)
        shown = values > SMALLEST * largest
        ax.plot(rank[shown], values[shown], ".-", color=COLORS[part], markersize=3, linewidth=0.6,
                label=f"$G_{{{part}}}$")  # fmt: skip
    ax.axvline(C, color="#888888", linewidth=0.6)
    ax.annotate(f"C = {C}", (C, 1), xycoords=ax.get_xaxis_transform(), xytext=(2, -2), textcoords="offset points",
                va="top", fontsize="x-small")  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("rank")
    ax.set_ylabel("eigenvalue λ")


def caption(results: Results) -> str:
    classes = sorted({result.arrays["class_part"].size for result in results.of("class_means")})
    few = (
        ""
        if classes[-1] > 10
        else f" Only {classes[-1]} classes here: the many that this figure is meant for are those of CIFAR100."
    )
    return (
        "Class/cross-class structure of G on the training set: the C eigenvalues of G_class and the C(C−2) of "
        f"G_cross by rank on logarithmic axes (grey line: rank C, C = {', '.join(map(str, classes))}; those below "
        f"{SMALLEST:g} of the largest are rounding and left out), and the cosines between the class means g_c in "
        f"the order of the labels.{few} {results.where('class_means')}"
    )
