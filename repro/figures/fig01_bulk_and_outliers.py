"""Figure 1: bulk, mini-bulk and outliers on a measured spectrum of G, beside the eigenvalues of its parts."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.panels import log_limits, log_spectrum_panel
from repro.figures.results import Results
from repro.figures.style import COLORS, PAGE, cell_title, subplots
from repro.storage.results import Result

MEASUREMENTS = ("dynamics",)
EPSILON, KAPPA = 1e-5, 1.25


def draw(results: Results) -> Figure:
    """A panel a network, after its last epoch: the density of G with its three ranges, the parts' eigenvalues below."""
    found = results.of("dynamics")
    figure, axes = subplots(len(found), 1, width=PAGE, row_height=2.6)
    for ax, result in zip(axes[:, 0], found):
        _panel(ax, result)
    return figure


def _panel(ax: Axes, result: Result) -> None:
    last = {name: values[-1] for name, values in result.arrays.items() if name != "gauss_newton_dim"}
    P, C = int(result.arrays["gauss_newton_dim"]), last["class_part"].size
    nodes, weights = last["gauss_newton_nodes"], last["gauss_newton_weights"]
    limits = log_limits([nodes], epsilon=EPSILON)
    for matrix, label in (("gauss_newton", "$G$"), ("within", "$G_{within}$")):
        log_spectrum_panel(
            ax,
            last[f"{matrix}_nodes"],
            last[f"{matrix}_weights"],
            P,
            limits=limits,
            color=COLORS[matrix],
            epsilon=EPSILON,
            kappa=KAPPA,
            label=label,
            fill=matrix == "gauss_newton",
            linestyle="-" if matrix == "gauss_newton" else "--",
        )
    low, high = ax.get_ylim()
    for row, (part, label) in enumerate((("class", "$G_{class}$"), ("cross", "$G_{cross}$"))):
        x, y = last[f"{part}_part"] + EPSILON, np.full(last[f"{part}_part"].size, low / 10 ** (0.8 * (row + 1)))
        ax.plot(x, y, "|", color=COLORS[part], markersize=6, label=label)
    ax.set_ylim(low / 10**2.4, high)
    _ranges(ax, nodes, weights, P, {"outliers": C, "mini-bulk": C * (C - 1)})
    if result.cell is not None:
        ax.set_title(cell_title(result.cell), loc="left")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _ranges(ax: Axes, nodes: np.ndarray, weights: np.ndarray, dim: int, ranks: dict[str, int]) -> None:
    """Shade the ranges that hold the eigenvalues down to the given ranks (by the quadrature's count), then the bulk."""
    right = float(nodes.max()) + EPSILON
    for shade, (name, rank) in zip((0.14, 0.07, 0.0), (*ranks.items(), ("bulk", None))):
        left = 3 * EPSILON if rank is None else _eigenvalue(nodes, weights, dim, rank) + EPSILON
        if left < right:
            ax.axvspan(left, right, color="#000000", alpha=shade, linewidth=0, zorder=0)
            at = np.sqrt(left * right)
            ax.annotate(name, (at, 0.97), xycoords=("data", "axes fraction"), ha="center", va="top", fontsize="small")
        right = left


def _eigenvalue(nodes: np.ndarray, weights: np.ndarray, dim: int, rank: int) -> float:
    """The value that `rank` of the P eigenvalues exceed, as the mean of the probes' quadratures counts them."""
    order = np.argsort(nodes, axis=None)[::-1]
    count = np.cumsum(weights.ravel()[order]) * dim / len(nodes)
    index: int = min(int(np.searchsorted(count, rank - 0.5)), len(count) - 1)
    return float(nodes.ravel()[order[index]])


def caption(results: Results) -> str:
    return (
        "The spectrum of G on the training set after the last epoch (filled), with the ranges that hold its C "
        "largest eigenvalues (outliers), the next C (C − 2) (mini-bulk) and the others that are not zero (bulk); "
        "these counts are Definitions 1.1 and 1.2 with the ranks of the class and cross-class parts. Ticks: exact "
        "eigenvalues of G_class and of G_cross; dashed: the spectrum of G_within. That the figure labels bulk and "
        "outliers on one spectrum is certain, that it marks the parts is from the companion paper. ε = "
        f"{EPSILON:g}, κ = {KAPPA:g}. {results.where('dynamics')}"
    )
