"""Extra figure x4: outliers of the Hessian against the eigenvalues of the class part (Papyan 2019)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.results import Results
from repro.figures.style import COLORS, PAGE, label_panels, subplots

MEASUREMENTS = ("alignment",)
PAPER = (
    "The comparison with G_1 is the companion paper's, which takes the outliers from subspace iteration; ours are "
    "from Lanczos with restarts."
)
COLUMNS = 3  # panels in a row
PARTS = {"companion_class_part": ("$G_1$, unweighted", "o"), "class_part": ("$G_{class}$", "s")}


def draw(results: Results) -> Figure:
    """One panel per network: the C largest eigenvalues of Hess over those of G_1 and of G_class, by rank."""
    found = results.of("alignment")
    columns = min(COLUMNS, len(found))
    figure, axes = subplots(-(-len(found) // columns), columns, width=PAGE * (columns + 1) / 4, row_height=2.4)
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    for ax, result in zip(axes.flat, found):
        _panel(ax, result.arrays)
        if result.cell is not None:
            ax.set_title(result.title.replace(", ", "\n", 1), fontsize="small")
    axes.flat[0].legend(loc="lower right")  # below the line, where few points lie
    label_panels(axes.flat[: len(found)])
    return figure


def _panel(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    C = arrays["class_part"].size
    outliers, converged = arrays["hessian_eigenvalues"][:C], arrays["hessian_converged"][:C]
    for (name, (label, marker)), color in zip(PARTS.items(), (COLORS["hessian"], COLORS["class"])):
        values = arrays[name][: len(outliers)]
        for done, face in ((converged, color), (~converged, "white")):
            ax.plot(
                values[done], outliers[done], marker, color=color, markerfacecolor=face, markersize=3.5, alpha=0.9,
                label=label if face == color else None,
            )  # fmt: skip
    ax.axline((1, 1), slope=1, color="#888888", linewidth=0.6, zorder=0)
    ax.set_xscale("log")
    ax.set_yscale("log")
    largest = max(outliers.max(), *(arrays[name].max() for name in PARTS))
    smallest = min(outliers[outliers > 0].min(), arrays["companion_class_part"].min())
    ax.set_xlim(max(smallest, 1e-5 * largest) / 2, 2 * largest)
    ax.set_ylim(ax.get_xlim())
    ax.set_xlabel("eigenvalue of the class part")
    ax.set_ylabel("outlier of Hess")


def caption(results: Results) -> str:
    return (
        "The C largest eigenvalues of the training Hessian against the eigenvalues of the same rank of the "
        "companion's G_1 (unweighted means) and of the paper's G_class; on the grey line they are equal. Open "
        "symbols: eigenpair not converged. "
        f"{results.where('alignment')}"
    )
