"""Figure 7: eigenvalues of the features' second moments H, layer by layer (Section 7)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.layers import histogram, layer_grid, log_edges, marks
from repro.figures.results import Results
from repro.figures.style import COLORS
from repro.storage.results import Result

MEASUREMENTS = ("layer_features",)
PAPER = (
    "The figure shows the spectra of the features' second moments and class means; that knockouts subtract is likely. "
    "For a convolution the paper does not say what a sample is; ours are the patches under its kernel."
)


def draw(results: Results) -> Figure:
    """One panel per layer: H, what is left without the class means, and the eigenvalues of H_class above."""
    return layer_grid(
        results.of("layer_features"),
        lambda result: len(result.arrays["layers"]),
        _panel,
        xlabel="eigenvalue λ",
        ylabel="eigenvalues",
    )


def _panel(ax: Axes, result: Result, l: int) -> None:
    arrays = result.arrays
    values = arrays[f"layer{l}_eigenvalues"]
    edges = log_edges(values)
    histogram(ax, values, edges, color=COLORS["whole"], label="H")
    histogram(ax, arrays[f"layer{l}_without_class"], edges, color=COLORS["within"], label="H − H$_{class}$", fill=False)
    marks(ax, arrays[f"layer{l}_class"], 0.4 * ax.get_ylim()[1], color=COLORS["class"], label="H$_{class}$")
    ax.set_title(feature_title(l, len(arrays["layers"])))


def feature_title(l: int, layers: int) -> str:
    """h⁰ = x, h¹, ..., logits."""
    return "$h^0 = x$" if l == 0 else "logits" if l == layers - 1 else f"$h^{{{l}}}$"


def caption(results: Results) -> str:
    return (
        "Uncentred second moments H of the features: what enters each linear layer after batch norm and ReLU, and the "
        "logits. Exact eigenvalues, counted in logarithmic bins; those below 1e-8 of the largest are not shown. "
        "Circles: the C eigenvalues of H_class. Light blue: H − H_class. For a convolution H is that of the patches "
        f"under its kernel. {results.where('layer_features')}"
    )
