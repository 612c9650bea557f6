"""Extra figure x9: what Lanczos hides and what it invents: its log spectrum of G over the exact eigenvalues."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.counts import PER_DECADE, ZEROS, bins, count, count_panel
from repro.figures.results import Results, is_exact
from repro.figures.style import COLORS, PAGE, label_panels, subplots
from repro.spectra.broadening import EPSILON, LOG_KAPPA
from repro.spectra.exact import stored_spectrum
from repro.spectra.record import Spectrum
from repro.storage.results import Result

MEASUREMENTS = ("exact_spectrum", "gauss_newton_knockouts")
EXACT, LANCZOS = COLORS["gauss_newton"], COLORS["residual"]


def draw(results: Results) -> Figure:
    """One row per network: eigenvalues per bin, and how many lie above each value, counted and by Lanczos."""
    pairs = _pairs(results)
    figure, axes = subplots(len(pairs), 2, width=PAGE, row_height=2.3)
    for line, (exact, lanczos) in zip(axes, pairs):
        values = stored_spectrum(exact.arrays).eigenvalues
        estimate = Spectrum.from_arrays(lanczos.arrays, "full")
        _densities(line[0], values, estimate)
        _cumulative(line[1], values, estimate)
        line[0].set_title(exact.title if exact.cell else "$G$", loc="left", fontsize="small")
    axes[0, 0].legend(loc="upper left")
    label_panels(axes.flat)
    return figure


def _pairs(results: Results) -> list[tuple[Result, Result]]:
    """The exact and the estimated spectrum of each cell that has both.

    Raises:
        ValueError: none has.
    """
    both = zip(results.of("exact_spectrum"), results.of("gauss_newton_knockouts"))
    pairs = [(exact, lanczos) for exact, lanczos in both if is_exact(exact)]
    if not pairs:
        raise ValueError(
            "no cell of this figure is small enough for the exact spectrum of G: raise"
            " measurements.exact_spectrum.limit, or show smaller samples"
        )
    return pairs


def _densities(ax: Axes, values: np.ndarray, estimate: Spectrum) -> None:
    edges = bins(values[0])
    count_panel(ax, values, edges, color=EXACT, fill=True, label="counted")
    count_panel(ax, estimate, edges, color=LANCZOS, label="by Lanczos, smoothed")
    ax.set_ylim(0.5, 4 * count(values, edges).max())
    ax.axvspan(edges[0], ZEROS, color="#000000", alpha=0.07, linewidth=0, zorder=0)


def _cumulative(ax: Axes, values: np.ndarray, estimate: Spectrum) -> None:
    """Number of eigenvalues above λ; by Lanczos from its nodes and weights, without smoothing."""
    edges = bins(values[0])
    ax.step(values, np.arange(1, len(values) + 1), where="post", color=EXACT, label="counted")
    nodes, weights = estimate.nodes.ravel(), estimate.weights.ravel() * estimate.dim / len(estimate.nodes)
    order = np.argsort(nodes)[::-1]
    ax.plot(nodes[order], np.cumsum(weights[order]), ".-", color=LANCZOS, markersize=3, linewidth=0.7, label="Lanczos")
    ax.set(xscale="log", yscale="log", xlim=(edges[0], edges[-1]), ylim=(0.5, 2 * len(values)))
    ax.axvspan(edges[0], ZEROS, color="#000000", alpha=0.07, linewidth=0, zorder=0)
    ax.set(xlabel="eigenvalue λ", ylabel="eigenvalues above λ")


def caption(results: Results) -> str:
    steps = sorted({Spectrum.from_arrays(lanczos.arrays, "full").steps for _, lanczos in _pairs(results)})
    return (
        "The spectrum of G on the training set twice: every eigenvalue, computed and counted (filled, "
        f"{PER_DECADE} bins per decade), and the log spectrum that Lanczos estimates with "
        f"{', '.join(map(str, steps))} steps, as the number of eigenvalues per bin. Right: how many eigenvalues lie "
        "above each value, counted and by the nodes and weights of Lanczos (dots), without smoothing. What differs on "
        "the left but not on the right is the smoothing's. In the shaded range a log spectrum shows the eigenvalues "
        f"that are zero, ε = {EPSILON:g}; κ = {LOG_KAPPA:g}. The figure is ours. {results.where('exact_spectrum')}"
    )
