"""Figure 8: class means emerge as outliers of the features with depth, and become orthogonal (Section 7)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.layers import cells_by_panels, spectra_of, top_by_depth
from repro.figures.panels import depth_panel
from repro.figures.results import Results
from repro.figures.style import COLORS
from repro.storage.results import Result

MEASUREMENTS = ("layer_features",)
PAPER = (
    "The figure shows outliers emerging with depth and class means becoming orthogonal; that its knockouts subtract "
    "is likely. The third panel is ours."
)


def draw(results: Results) -> Figure:
    """One row per cell: leading eigenvalues with knockouts, spread of the class means, and overlaps, by depth."""
    return cells_by_panels(results.of("layer_features"), (_knockouts, _ratio, _overlaps), widths=(2, 1, 1))


def _knockouts(ax: Axes, result: Result) -> None:
    layers = len(result.arrays["layers"])
    classes = len(result.arrays["layer0_class"])
    series = [
        ("H", COLORS["whole"], spectra_of(result, "eigenvalues", layers)),
        ("H − global mean", COLORS["global"], spectra_of(result, "without_global", layers)),
        ("H − H$_{class}$", COLORS["within"], spectra_of(result, "without_class", layers)),
    ]
    top_by_depth(ax, series, count=2 * classes, xlabels=[*map(str, range(layers - 1)), "logits"])
    ax.set_ylabel(f"leading {2 * classes} eigenvalues")
    ax.set_xlabel("layer")


def _ratio(ax: Axes, result: Result) -> None:
    ratios = result.arrays["class_ratio"][:-1]  # at the logits class means are dependent: the ratio says nothing
    depth_panel(ax, range(len(ratios)), ratios, color=COLORS["class"])
    ax.set_ylabel("λ$_2$ / λ$_C$ of H$_{class}$")


def _overlaps(ax: Axes, result: Result) -> None:
    arrays = result.arrays
    layers = range(len(arrays["layers"]))
    depth_panel(ax, layers, arrays["class_overlap"], color=COLORS["class"], label="top C in class means", log=False)
    depth_panel(
        ax,
        layers,
        arrays["global_share"],
        color=COLORS["global"],
        label="top 1 along global mean",
        log=False,
        marker="s",
    )
    depth_panel(
        ax, layers, arrays["class_share"], color=COLORS["whole"], label="tr H$_{class}$ / tr H", log=False, marker="^"
    )
    ax.set_ylim(0, 1.05)
    ax.set_ylabel("share")


def caption(results: Results) -> str:
    return (
        "Features over the layers (0 is the input). First: the leading 2C eigenvalues of H, of H without the global "
        "mean, and of H without the class means, by subtraction. Second: second over smallest "
        "eigenvalue of H_class, which falls as class means become orthogonal and alike in size; without the logits. "
        "Third: squared cosine of the top C eigenvectors with the span of the class means, of the top one with "
        f"the global mean, and the class part of the trace. {results.where('layer_features')}"
    )
