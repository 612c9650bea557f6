"""Figure 10: class and cross-class means in the errors, strong at the output and lost toward the input (Section 7)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.layers import cells_by_panels, spectra_of, top_by_depth
from repro.figures.panels import depth_panel
from repro.figures.results import Results
from repro.figures.style import COLORS
from repro.storage.results import Result

MEASUREMENTS = ("layer_errors",)
PAPER = (
    "The figure shows the outliers of the errors being lost towards the input; that its knockouts subtract is likely. "
    "The second and third panel are ours."
)


def draw(results: Results) -> Figure:
    """One row per cell: by depth, leading eigenvalues with knockouts, angles of class means, traces of the parts."""
    return cells_by_panels(results.of("layer_errors"), (_knockouts, _cosines, _shares), widths=(2, 1, 1))


def _knockouts(ax: Axes, result: Result) -> None:
    layers = len(result.arrays["layers"])
    classes = len(result.arrays["layer0_class"])
    series = [
        ("Δ", COLORS["whole"], spectra_of(result, "eigenvalues", layers)),
        ("Δ − Δ$_{class}$", COLORS["class"], spectra_of(result, "without_class", layers)),
        ("Δ − Δ$_{cross}$", COLORS["cross"], spectra_of(result, "without_cross", layers)),
        ("Δ$_{within}$", COLORS["within"], spectra_of(result, "within", layers)),
    ]
    top_by_depth(ax, series, count=2 * classes, xlabels=[str(l + 1) for l in range(layers)])
    ax.set_ylabel(f"leading {2 * classes} eigenvalues")
    ax.set_xlabel("layer")


def _cosines(ax: Axes, result: Result) -> None:
    cosines = result.arrays["cosines"]  # [L, C, C]
    different = ~np.eye(cosines.shape[1], dtype=bool)
    layers = range(1, len(cosines) + 1)
    depth_panel(
        ax,
        layers,
        np.abs(cosines[:, different]).mean(axis=1),
        color=COLORS["class"],
        label="mean |cos(δ$_c$, δ$_d$)|",
        log=False,
    )
    overlap = result.arrays["class_overlap"]
    depth_panel(ax, layers, overlap, color=COLORS["whole"], label="top C−1 in class means", log=False, marker="^")
    ax.set_ylim(0, 1.05)
    ax.set_ylabel("cosine, overlap")


def _shares(ax: Axes, result: Result) -> None:
    shares = result.arrays["shares"]  # [L, 4]
    layers = range(1, len(shares) + 1)
    names = {"class": "class", "cross": "cross", "within": "within", "same": "c = c'"}
    for index, (part, label) in enumerate(names.items()):
        depth_panel(ax, layers, shares[:, index], color=COLORS[part], label=label, log=False, marker="osv^"[index])
    ax.set_ylim(0, None)
    ax.set_ylabel("share of tr Δ")


def caption(results: Results) -> str:
    return (
        "Errors over the layers (the last one at the logits). First: the leading 2C eigenvalues of Δ, of Δ without the "
        "class part, without the cross-class part, and of what remains within, by subtraction. Second: "
        "mean absolute cosine between class means of different classes, and squared cosine of the top C − 1 "
        f"eigenvectors with the span of the class means. Third: trace of each part. {results.where('layer_errors')}"
    )
