"""Figure 1: bulk, mini-bulk and outliers on a measured spectrum of G, beside the eigenvalues of its parts."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.counts import PER_DECADE, bins, count_panel, mark_eigenvalues
from repro.figures.panels import log_limits, log_spectrum_panel
from repro.figures.results import Results, is_exact
from repro.figures.style import COLORS, PAGE, subplots
from repro.spectra.broadening import EPSILON, LOG_KAPPA
from repro.spectra.exact import stored_spectrum
from repro.spectra.record import Spectrum

MEASUREMENTS = ("exact_spectrum",)
FALLBACK = "dynamics"
PAPER = (
    "That the figure labels bulk and outliers on one spectrum is certain; that it marks the parts is from the "
    "companion paper, and that eigenvalues are counted instead of smoothed is ours."
)


def draw(results: Results) -> Figure:
    """One panel per network at its last epoch: the spectrum of G and its three ranges, the parts' eigenvalues below."""
    found = results.of("exact_spectrum")
    figure, axes = subplots(len(found), 1, width=PAGE, row_height=2.6)
    for ax, result in zip(axes[:, 0], found):
        (_counted if is_exact(result) else _estimated)(ax, result.arrays)
        if result.cell is not None:
            ax.set_title(result.title, loc="left")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _counted(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The histogram of all eigenvalues, each counted where the part is that contributes most to it."""
    spectrum = stored_spectrum(arrays)
    values, C = spectrum.eigenvalues, len(spectrum.arrays["class_part"])
    edges = bins(values[0])
    count_panel(ax, values, edges, color=COLORS["gauss_newton"], fill=True, label="$G$")
    for row, part in enumerate(("class", "cross")):
        label = f"most from $G_{{{part}}}$\n(ticks: its own)"
        count_panel(ax, spectrum.of(part), edges, color=COLORS[part], fill=True, alpha=0.6, label=label)
        mark_eigenvalues(ax, spectrum.part(part), color=COLORS[part], row=row)
    own = spectrum.part("within")
    count_panel(ax, own, edges, color=COLORS["within"], linestyle="--", label="$G_{within}$ alone")
    ax.set_ylim(0.12, ax.get_ylim()[1])  # room for the ticks
    ranks = {"outliers": C, "mini-bulk": C * (C - 1)}
    _ranges(ax, edges[-1], {name: values[min(rank, len(values)) - 1] for name, rank in ranks.items()}, edges[0])


def _estimated(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """The log spectrum by Lanczos."""
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
    ranks = {"outliers": C, "mini-bulk": C * (C - 1)}
    ends = {name: _eigenvalue(G, rank) + EPSILON for name, rank in ranks.items()}
    _ranges(ax, G.largest + EPSILON, ends, 3 * EPSILON)


def _ranges(ax: Axes, right: float, ends: dict[str, float], bulk: float) -> None:
    """Shade the ranges of eigenvalues that end, on the left, where `ends` says; the last is the bulk's."""
    for shade, (name, left) in zip((0.14, 0.07, 0.0), (*ends.items(), ("bulk", bulk))):
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
    found = results.of("exact_spectrum")
    estimated = [result.title for result in found if not is_exact(result)]
    counted = (
        f"Every eigenvalue is computed and counted, {PER_DECADE} bins per decade, those to which G_class or G_cross "
        "contributes most once more in its colour; those that are zero are left out. "
    )
    lanczos = (
        f"Estimated by Lanczos, as there are too many examples to count eigenvalues: {'; '.join(estimated)}; the "
        f"ranges are by the quadrature's count, ε = {EPSILON:g}, κ = {LOG_KAPPA:g}. "
    )
    return (
        "The spectrum of G on the training set after the last epoch (filled), with the ranges that hold its C "
        "largest eigenvalues (outliers), the next C (C − 2) (mini-bulk) and the others that are not zero (bulk); "
        "these counts are Definitions 1.1 and 1.2 with the ranks of the class and cross-class parts. Ticks: exact "
        "eigenvalues of G_class and of G_cross; dashed: the spectrum of G_within. "
        f"{counted if len(estimated) < len(found) else ''}{lanczos if estimated else ''}"
        + results.where("exact_spectrum")
    )
