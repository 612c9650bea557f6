"""Extra figure x5: how sure a density is: error bands, and the mass a probe gives to the outliers (ours)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.panels import spectrum_panel
from repro.figures.results import Results
from repro.figures.style import COLORS, PAGE, label_panels, subplots
from repro.storage.results import Result

MEASUREMENTS = ("density_probes",)


def draw(results: Results) -> Figure:
    """A row a cell: plain density, deflated density, and the mass of the outliers by probe."""
    cells = results.of("density_probes")
    figure, axes = subplots(len(cells), 3, width=PAGE, row_height=1.9)
    for row, result in zip(axes, cells):
        _plain(row[0], result)
        _deflated(row[1], result)
        _mass(row[2], result)
    label_panels(axes.flat)
    return figure


def _plain(ax: Axes, result: Result) -> None:
    a = result.arrays
    dim = int(a["deflated_dim"])
    spectrum_panel(ax, a["plain_nodes"], a["plain_weights"], dim, color=COLORS["hessian"], band=True)
    ax.set_title("Lanczos alone")


def _deflated(ax: Axes, result: Result) -> None:
    a = result.arrays
    spectrum_panel(
        ax,
        a["deflated_nodes"],
        a["deflated_weights"],
        int(a["deflated_dim"]),
        color=COLORS["hessian"],
        eigenvalues=a["deflated_eigenvalues"],
        converged=a["deflated_converged"],
        band=True,
    )
    ax.set_title("outliers taken exactly")


def _mass(ax: Axes, result: Result) -> None:
    """Weight of the nodes above the weakest outlier, times P: it counts the outliers, if a probe sees them rightly."""
    a = result.arrays
    dim, edge = int(a["deflated_dim"]), 0.95 * np.abs(a["deflated_eigenvalues"]).min()
    for name, label, color, marker in (
        ("plain", "Lanczos alone", COLORS["residual"], "s"),
        ("deflated", "outliers exact", COLORS["hessian"], "o"),
    ):
        mass = dim * np.where(np.abs(a[f"{name}_nodes"]) > edge, a[f"{name}_weights"], 0).sum(axis=1)
        ax.plot(np.arange(1, len(mass) + 1), mass, marker, markersize=3.5, color=color, label=label)
    ax.axhline(len(a["deflated_eigenvalues"]), color="#888888", linewidth=0.6, zorder=0)
    ax.set_xticks(range(1, len(a["plain_nodes"]) + 1))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("probe")
    ax.set_ylabel("outliers' mass × P")
    ax.legend()


def caption(results: Results) -> str:
    settings = results.of("density_probes")[0].provenance["measurement"]
    return (
        f"The density of the training Hessian from {settings['probes']} random probes of {settings['steps']} Lanczos "
        "steps: mean and one standard error of it (band). Left, Lanczos alone: each probe gives an outlier a mass that "
        "is 1/P times a chi-square variable. Middle, the leading C eigenpairs taken exactly and the rest from the "
        "orthogonal complement. Right, the mass above the weakest outlier times P, by probe; the line is the number of "
        "outliers it should count. The figure is ours; the paper takes one probe. "
        f"{results.where('density_probes')}"
    )
