"""Figure 1: bulk, mini-bulk and outliers on a measured spectrum of G, beside the eigenvalues of its parts."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.panels import log_limits, log_spectrum_panel
from repro.figures.results import Results
from repro.figures.style import COLORS, PAGE, subplots
from repro.spectra.broadening import EPSILON, LOG_KAPPA
from repro.spectra.record import Spectrum
from repro.storage.results import Result

MEASUREMENTS = ("dynamics",)


def draw(results: Results) -> Figure:
    """One panel per network at its last epoch: the density of G and its three ranges, the parts' eigenvalues below."""
    found = results.of("dynamics")
    figure, axes = subplots(len(found), 1, width=PAGE, row_height=2.6)
    for ax, result in zip(axes[:, 0], found):
        _panel(ax, result)
    return figure


def _panel(ax: Axes, result: Result) -> None:
    arrays = result.arrays
    C = arrays["class_part"].shape[1]
    G = Spectrum.from_arrays(arrays, "gauss_newton", at=-1)
    within = Spectrum.from_arrays(arrays, "within", at=-1, dim=G.dim)
    limits = log_limits([G])
    log_spectrum_panel(ax, G, limits=limits, color=COLORS["gauss_newton"], label="$G$")
    log_spectrum_panel(
        ax, within, limits=limits, color=COLORS["within"], label="$G_{within}$", fill=False, linestyle="--"
    )
    low, high = ax.get_ylim()
    for row, (part, label) in enumerate((("class", "$G_{class}$"), ("cross", "$G_{cross}$"))):
        x = arrays[f"{part}_part"][-1] + EPSILON
        ax.plot(x, np.full(len(x), low / 10 ** (0.8 * (row + 1))), "|", color=COLORS[part], markersize=6, label=label)
    ax.set_ylim(low / 10**2.4, high)
    _ranges(ax, G, {"outliers": C, "mini-bulk": C * (C - 1)})
    if result.cell is not None:
        ax.set_title(result.title, loc="left")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _ranges(ax: Axes, spectrum: Spectrum, ranks: dict[str, int]) -> None:
    """Shade the ranges that hold the eigenvalues down to the given ranks (by the quadrature's count), then the bulk."""
    right = spectrum.largest + EPSILON
    for shade, (name, rank) in zip((0.14, 0.07, 0.0), (*ranks.items(), ("bulk", None))):
        left = 3 * EPSILON if rank is None else _eigenvalue(spectrum, rank) + EPSILON
        if left < right:
            ax.axvspan(left, right, color="#000000", alpha=shade, linewidth=0, zorder=0)
            at = np.sqrt(left * right)
            ax.annotate(name, (at, 0.97), xycoords=("data", "axes fraction"), ha="center", va="top", fontsize="small")
        right = left


def _eigenvalue(spectrum: Spectrum, rank: int) -> float:
    """The value that `rank` of the P eigenvalues exceed, as the mean of the probes' quadratures counts them."""
    nodes, weights = spectrum.nodes.ravel(), spectrum.weights.ravel()
    order = np.argsort(nodes)[::-1]
    count = np.cumsum(weights[order]) * spectrum.dim / len(spectrum.nodes)
    index: int = min(int(np.searchsorted(count, rank - 0.5)), len(count) - 1)
    return float(nodes[order[index]])


def caption(results: Results) -> str:
    return (
        "The spectrum of G on the training set after the last epoch (filled), with the ranges that hold its C "
        "largest eigenvalues (outliers), the next C (C − 2) (mini-bulk) and the others that are not zero (bulk); "
        "these counts are Definitions 1.1 and 1.2 with the ranks of the class and cross-class parts. Ticks: exact "
        "eigenvalues of G_class and of G_cross; dashed: the spectrum of G_within. That the figure labels bulk and "
        "outliers on one spectrum is certain, that it marks the parts is from the companion paper. ε = "
        f"{EPSILON:g}, κ = {LOG_KAPPA:g}. {results.where('dynamics')}"
    )
