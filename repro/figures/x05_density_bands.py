"""Extra figure x5: how sure a density is: error bands, and the mass a probe gives to the outliers (ours)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.panels import spectrum_panel
from repro.figures.results import Results
from repro.figures.style import COLORS, PAGE, label_panels, subplots
from repro.spectra.record import Spectrum

MEASUREMENTS = ("density_probes",)
PAPER = "The figure is ours; the paper takes one probe."


def draw(results: Results) -> Figure:
    """One row per cell: plain density, deflated density, and the mass of the outliers by probe."""
    cells = results.of("density_probes")
    figure, axes = subplots(len(cells), 3, width=PAGE, row_height=1.9)
    for row, result in zip(axes, cells):
        deflated = Spectrum.from_arrays(result.arrays, "deflated")
        plain = Spectrum.from_arrays(result.arrays, "plain", dim=deflated.dim)
        for ax, spectrum, title in zip(row, (plain, deflated), ("Lanczos alone", "outliers taken exactly")):
            spectrum_panel(ax, spectrum, color=COLORS["hessian"], outliers=spectrum is deflated, band=True)
            ax.set_title(title)
        _mass(row[2], plain, deflated)
    label_panels(axes.flat)
    return figure


def _mass(ax: Axes, plain: Spectrum, deflated: Spectrum) -> None:
    """Weight of the nodes above the weakest outlier, times P: it counts the outliers, if a probe sees them rightly."""
    edge = 0.95 * np.abs(deflated.eigenvalues).min()
    for spectrum, label, color, marker in (
        (plain, "Lanczos alone", COLORS["residual"], "s"),
        (deflated, "outliers exact", COLORS["hessian"], "o"),
    ):
        mass = spectrum.dim * np.where(np.abs(spectrum.nodes) > edge, spectrum.weights, 0).sum(axis=1)
        ax.plot(np.arange(1, len(mass) + 1), mass, marker, markersize=3.5, color=color, label=label)
    ax.axhline(len(deflated.eigenvalues), color="#888888", linewidth=0.6, zorder=0)
    ax.set_xticks(range(1, len(plain.nodes) + 1))
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
        "outliers it should count. "
        f"{results.where('density_probes')}"
    )
