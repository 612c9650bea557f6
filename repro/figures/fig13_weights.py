"""Figure 13: singular values of the weights, layer by layer, and what the class means explain (Section 7)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.layers import cells_by_panels, spectra_of, top_by_depth
from repro.figures.panels import depth_panel
from repro.figures.results import Results
from repro.figures.style import COLORS
from repro.storage.results import Result

MEASUREMENTS = ("weights",)
PAPER = (
    "W_class = −(1/η) Ave_c δ_{c,c} h_cᵀ is likely the paper's, and so is subtraction; projection, the scale a and "
    "the second panel are ours."
)


def draw(results: Results) -> Figure:
    """One row per cell: leading singular values with knockouts, and how W lies to the class means, by depth."""
    return cells_by_panels(results.of("weights"), (_knockouts, _overlaps), widths=(2.2, 1))


def _knockouts(ax: Axes, result: Result) -> None:
    layers = len(result.arrays["layers"])
    classes = len(result.arrays["layer0_class"])
    scaled = [abs(a) * values for a, values in zip(result.arrays["scale"], spectra_of(result, "class", layers))]
    series = [
        ("W", COLORS["whole"], spectra_of(result, "singular", layers)),
        ("a W$_{class}$", COLORS["class"], scaled),
        ("W − a W$_{class}$", COLORS["residual"], spectra_of(result, "scaled", layers)),
        ("W projected", COLORS["within"], spectra_of(result, "projected", layers)),
    ]
    top_by_depth(ax, series, count=3 * classes, xlabels=[str(l + 1) for l in range(layers)])
    ax.set_ylabel(f"leading {3 * classes} singular values")
    ax.set_xlabel("layer")


def _overlaps(ax: Axes, result: Result) -> None:
    arrays = result.arrays
    layers = range(1, len(arrays["layers"]) + 1)
    for name, color, label, marker in (
        ("left_overlap", "class", "top C left in δ$_c$", "o"),
        ("right_overlap", "global", "top C right in h$_c$", "s"),
        ("class_cosine", "whole", "cos(W, W$_{class}$)", "^"),
    ):
        depth_panel(ax, layers, arrays[name], color=COLORS[color], label=label, marker=marker, log=False)
    for name, color in (("left_chance", "class"), ("right_chance", "global")):
        depth_panel(ax, layers, arrays[name], color=COLORS[color], marker="", linestyle=":", log=False)
    ax.set_ylim(0, 1.05)
    ax.set_ylabel("overlap, cosine")


def caption(results: Results) -> str:
    first = results.of("weights")[0].arrays
    residuals = ", ".join(f"{value:.1f}" for value in first["stationarity"])
    scales = ", ".join(f"{value:.2g}" for value in first["scale"])
    return (
        "First: leading singular values of each layer's weights W, and after two knockouts of W_class = −(1/η) Ave_c "
        "δ_{c,c} h_cᵀ, η the weight decay: subtraction, and projection of its columns and rows. "
        "The size of W_class presumes stationary weights, which batch norm prevents; so that its direction can "
        "be judged it is scaled by the number a that brings a W_class closest to W (1 at a stationary point): "
        f"{scales} by layer. The residual ‖W + ∇L/η‖ / ‖W‖ is {residuals} (of the first network shown). Second: "
        "squared cosine of the top C singular vectors with the span of the class means of errors (left) and features "
        f"(right), dotted what random vectors would have, and the cosine of W with W_class. {results.where('weights')}"
    )
