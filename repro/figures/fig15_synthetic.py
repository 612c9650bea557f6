"""Figure 15: estimated spectra of synthetic matrices against their exact eigenvalues (Appendix C)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.results import Results
from repro.figures.style import COLORS, label_panels, subplots
from repro.spectra.broadening import KAPPA, LOG_KAPPA, Curve, linear_curve, log_curve
from repro.spectra.record import Spectrum

MEASUREMENTS = ("synthetic_spectra",)
PAPER = (
    "The distributions, the grid of points and the histogram are the paper's. That Z is at least 1 is our reading, and "
    "the paper states no κ for its log spectra."
)
POINTS, BINS = 200, 40  # the paper's grid and histogram in this figure


def draw(results: Results) -> Figure:
    """Histogram of all eigenvalues, and the density from Lanczos; linear axis left, logarithmic right."""
    (result,) = results.of("synthetic_spectra")
    arrays, epsilon = result.arrays, float(result.provenance["measurement"]["epsilon"])
    figure, axes = subplots(1, 2, row_height=2.1)
    spiked, heavy = axes[0]
    low, high = arrays["spiked_limits"]
    found = Spectrum.from_arrays(arrays, "spiked", dim=len(arrays["spiked_exact"]))
    curve = linear_curve(found.nodes, found.weights, points=POINTS, limits=(low, high))
    _compare(spiked, arrays["spiked_exact"], np.linspace(low, high, BINS + 1), curve)
    spiked.set_xlabel("eigenvalue λ")
    spiked.set_title("spiked: diag(5, 4, 3, 0, …) + ZZᵀ/2000, Z normal")
    low, high = arrays["heavy_limits"]
    found = Spectrum.from_arrays(arrays, "heavy", dim=len(arrays["heavy_exact"]))
    curve = log_curve(found.nodes, found.weights, epsilon=epsilon, points=POINTS, limits=(low, high))
    _compare(heavy, np.abs(arrays["heavy_exact"]) + epsilon, np.geomspace(low, high, BINS + 1), curve)
    heavy.set_xscale("log")
    heavy.set_xlim(0.1 * arrays["heavy_exact"].min(), high)  # the grid begins at epsilon, far from any eigenvalue
    heavy.set_xlabel("eigenvalue |λ| + ε")
    heavy.set_title("heavy-tailed: ZZᵀ/1000, Z Pareto(1)")
    spiked.legend(loc="upper right")
    label_panels(axes[0])
    return figure


def _compare(ax: Axes, exact: np.ndarray, edges: np.ndarray, curve: Curve) -> None:  # [D], [BINS + 1]
    """Both as density per unit eigenvalue; nothing is drawn below a tenth of one eigenvalue in a bin."""
    histogram, _ = np.histogram(exact, edges, density=True)
    floor = 0.1 / (len(exact) * np.diff(edges))
    shown = np.maximum(histogram, floor.min())
    label = "exact, histogram"
    ax.stairs(shown, edges, baseline=floor.min(), fill=True, color=COLORS["within"], alpha=0.6, label=label)
    above = curve.density > np.interp(curve.x, edges[1:], floor)
    ax.plot(curve.x, np.where(above, curve.density, np.nan), color=COLORS["hessian"], label="Lanczos estimate")
    ax.set_yscale("log")
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(floor.min(), None)
    ax.set_ylabel("density per unit λ")


def caption(results: Results) -> str:
    (result,) = results.of("synthetic_spectra")
    settings, exact = result.provenance["measurement"], result.arrays["spiked_exact"]
    spikes = ", ".join(f"{value:.2f}" for value in exact[-1 : -len(settings["spikes"]) - 1 : -1])
    return (
        f"Synthetic checks. Left, {settings['spiked_dim']} eigenvalues, the largest at {spikes}: LanczosApproxSpec, "
        f"M = {settings['spiked_steps']}, κ = {KAPPA:g}, K = {POINTS}. Right, {settings['heavy_dim']} eigenvalues, Z "
        f"with minimum 1: log spectrum with M = {settings['heavy_steps']}, ε = {settings['epsilon']:g}, "
        f"κ = {LOG_KAPPA:g}. {settings['probes']} probes each, without reorthogonalisation, "
        f"against a histogram of {BINS} bins. The matrices are our draws from the paper's distributions. "
        f"{results.where('synthetic_spectra')}"
    )
