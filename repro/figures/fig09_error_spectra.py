"""Figure 9: eigenvalues of the errors' second moments Delta, layer by layer (Section 7)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.layers import histogram, layer_grid, log_edges, marks
from repro.figures.results import Results
from repro.figures.style import COLORS
from repro.storage.results import Result

MEASUREMENTS = ("layer_errors",)
PAPER = (
    "The figure shows the spectra of the errors' second moments; that knockouts subtract is likely. For a convolution "
    "the paper does not say what a sample is; every position is one unless set otherwise."
)


def draw(results: Results) -> Figure:
    """One panel per layer: Delta, what is left within cross-classes; above, the eigenvalues of the low-rank parts."""
    return layer_grid(
        results.of("layer_errors"),
        lambda result: len(result.arrays["layers"]),
        _panel,
        xlabel="eigenvalue λ",
        ylabel="eigenvalues",
    )


def _panel(ax: Axes, result: Result, l: int) -> None:
    arrays = result.arrays
    values = arrays[f"layer{l}_eigenvalues"]
    edges = log_edges(values)
    histogram(ax, values, edges, color=COLORS["whole"], label="Δ")
    histogram(ax, arrays[f"layer{l}_within"], edges, color=COLORS["within"], label="Δ$_{within}$", fill=False)
    top = ax.get_ylim()[1]
    marks(ax, arrays[f"layer{l}_cross"], 0.2 * top, color=COLORS["cross"], label="Δ$_{cross}$", marker="|")
    marks(ax, arrays[f"layer{l}_class"], 0.6 * top, color=COLORS["class"], label="Δ$_{class}$")
    ax.set_title(error_title(l, len(arrays["layers"])))


def error_title(l: int, layers: int) -> str:
    """δ¹, δ², ..., the last one at the logits."""
    return f"$δ^{{{l + 1}}}$" + (" (logits)" if l == layers - 1 else "")


def caption(results: Results) -> str:
    return (
        "Weighted second moments Δ of the errors at the output of each linear map, before batch norm. Exact "
        "eigenvalues, counted in logarithmic bins; those below 1e-8 of the largest are not shown. Circles: the C "
        "eigenvalues of Δ_class; ticks: those of Δ_cross, at most C (C − 2). Light blue: Δ minus Δ_class, Δ_cross and "
        "Δ_{c=c'}. For a convolution every position is a sample unless set otherwise. "
        f"{results.where('layer_errors')}"
    )
