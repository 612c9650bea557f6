"""Figure 14: outliers, mini-bulk and misclassification in multinomial logistic regression (Section 8)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.results import Results
from repro.figures.style import COLORS, label_panels, subplots

MEASUREMENTS = ("logistic_regression",)
PAPER = (
    "Theorem 8.1 is the paper's. That this figure shows them is a guess, as are the settings; the "
    "softmax, its ratios and the α that follows the Bayes error are ours."
)
THEORY, CONSTANT, SOFTMAX = COLORS["whole"], COLORS["cross"], COLORS["class"]


def draw(results: Results) -> Figure:
    """Eigenvalues by rank; ratios to the bulk over the signal-to-noise ratio; and against the misclassification."""
    (result,) = results.of("logistic_regression")
    figure, (axes,) = subplots(1, 3, row_height=2.2)
    _spectrum(axes[0], result.arrays)
    _ratios(axes[1], result.arrays, "snrs", "signal-to-noise ratio s")
    _ratios(axes[2], result.arrays, "bayes_error", "misclassification")
    axes[1].set_xscale("log")
    axes[0].legend(loc="upper right")
    axes[1].legend(loc="upper left")
    label_panels(axes)
    return figure


def _spectrum(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    C, D = arrays["dimensions"]
    ranks = np.arange(1, D * (C - 1) + 1)  # beyond this rank G is zero
    for name, color, label in (
        ("softmax", SOFTMAX, "sample, softmax p"),
        ("constant", CONSTANT, "sample, constant p"),
        ("expected", THEORY, "Theorem 8.1"),
    ):
        ax.plot(
            ranks,
            arrays[f"{name}_eigenvalues"][: len(ranks)],
            color=color,
            label=label,
            linestyle="-" if name == "expected" else "",
            marker="" if name == "expected" else ".",
            markersize=3,
        )
    for position, text in ((C, "C"), (C * (C - 1), "C (C−1)")):
        ax.axvline(position, color="#888888", linewidth=0.4, linestyle=":")
        ax.annotate(
            text, (position, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize="x-small"
        )
    ax.set_yscale("log")
    ax.set_xlabel("rank")
    ax.set_ylabel("eigenvalue of G")


def _ratios(ax: Axes, arrays: dict[str, np.ndarray], against: str, label: str) -> None:
    x = arrays[against]
    for part, style in (("outlier", "-"), ("minibulk", "--")):
        name = {"outlier": "outliers", "minibulk": "mini-bulk"}[part]
        ax.plot(x, arrays[f"{part}_ratio"], color=THEORY, linestyle=style, label=f"{name}, theorem")
        ax.plot(
            x,
            arrays[f"softmax_{part}_ratio"],
            color=SOFTMAX,
            linestyle=style,
            marker=".",
            markersize=4,
            label=f"{name}, softmax",
        )
    ax.set_yscale("log")
    ax.set_xlabel(label)
    ax.set_ylabel("ratio to the bulk")


def caption(results: Results) -> str:
    settings = results.of("logistic_regression")[0].provenance["measurement"]
    return (
        "Multinomial logistic regression on Gaussian classes (Section 8), C = "
        f"{settings['classes']}, D = {settings['features']}. First: eigenvalues of E G by Theorem 8.1 at s = "
        f"{settings['snr']:g}, of a sample of {settings['examples']} points under the theorem's constant p, "
        "and under the softmax of the Bayes classifier, where C − 1 outliers stand clear and the mini-bulk does not "
        "end at C (C − 1). Second and third: outliers and mini-bulk over the bulk, against s and the Bayes error "
        "1 − E Φ(t+Z)^{C−1}, to which the theorem's α is set; for softmax probabilities the mean of the top "
        "C − 1 and of the next C (C − 2) over the median of the others. Both grow as the error falls. "
        f"{results.where('logistic_regression')}"
    )
