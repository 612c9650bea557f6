"""Extra figure x2: the largest eigenvectors of Hess and of G against class and cross-class means, in numbers."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repro.figures.results import Results
from repro.figures.style import COLORS, PAGE, label_panels, subplots

MEASUREMENTS = ("alignment",)
PAPER = "The paper judges these alignments by eye and gives no such numbers."
MATRICES = {"hessian": "Hess", "gauss_newton": "$G$"}
PARTS = {
    "class": "$G_{class}$",
    "cross": "$G_{cross}$",
    "within": "$G_{within}$",
    "same": "$G_{c=c'}$",
    "residual": "$E$",
}


def draw(results: Results) -> Figure:
    """One row per network: parts of the eigenvalues of Hess and of G; overlaps; principal angles."""
    found = results.of("alignment")
    figure, axes = subplots(len(found), 4, width=PAGE, row_height=1.9)
    for line, result in zip(axes, found):
        for ax, matrix in zip(line, MATRICES):
            _shares(ax, result.arrays, matrix)
        _overlaps(line[2], result.arrays)
        _angles(line[3], result.arrays)
        if result.cell is not None and len(found) > 1:
            name = result.title.replace(", ", "\n", 1)
            line[0].set_ylabel(f"{name}\nshare of eigenvalue", fontsize="x-small")
    handles = {label: handle for ax in axes[0, [0, 2, 3]] for handle, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    label_panels(axes.flat)
    return figure


def _shares(ax: Axes, arrays: dict[str, np.ndarray], matrix: str) -> None:
    """Bars that add up to one; what is negative hangs below zero."""
    rank = np.arange(1, len(arrays[f"{matrix}_eigenvalues"]) + 1)
    above, below = np.zeros(len(rank)), np.zeros(len(rank))
    for part, label in PARTS.items():
        share = arrays[f"{matrix}_share_{part}"]
        ax.bar(rank, share, bottom=np.where(share >= 0, above, below), color=COLORS[part], width=0.9, label=label)
        above, below = above + share.clip(min=0), below + share.clip(max=0)
    ax.axvline(arrays["class_part"].size + 0.5, color="#888888", linewidth=0.6)
    ax.axhline(0, color="#000000", linewidth=0.5)
    _ranks(ax, "share of eigenvalue", f"eigenvalues of {MATRICES[matrix]}")


def _overlaps(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Squared projection of each eigenvector onto the span of the class means, and of the cross-class part."""
    for matrix, name in MATRICES.items():
        for part, line in (("class", "-"), ("cross", ":")):
            overlap = arrays[f"{matrix}_overlap_{part}"]
            ax.plot(
                np.arange(1, len(overlap) + 1), overlap, line, marker="o", markersize=2.5, color=COLORS[matrix],
                label=f"{name}, {PARTS[part]}",
            )  # fmt: skip
    ax.axhline(0.5, color="#888888", linewidth=0.6)
    ax.axvline(arrays["class_part"].size + 0.5, color="#888888", linewidth=0.6)
    ax.set_ylim(-0.03, 1.03)
    _ranks(ax, "squared projection", "eigenvector onto span")


def _angles(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Cosines of the principal angles between C-dimensional spans."""
    for key, color, label in (
        ("hessian_class_cosines", COLORS["hessian"], "Hess, $G_{class}$"),
        ("gauss_newton_class_cosines", COLORS["gauss_newton"], "$G$, $G_{class}$"),
        ("hessian_gauss_newton_cosines", COLORS["residual"], "Hess, $G$: C largest each"),
    ):
        cosines = arrays[key]
        ax.plot(np.arange(1, len(cosines) + 1), cosines, marker="o", markersize=2.5, color=color, label=label)
    ax.set_ylim(-0.03, 1.03)
    _ranks(ax, "cosine", "principal angles")


def _ranks(ax: Axes, label: str, title: str) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    ax.set_xlabel("rank")
    ax.set_ylabel(label)
    ax.set_title(title, fontsize="small")


def caption(results: Results) -> str:
    lines = []
    for result in results.of("alignment"):
        C = result.arrays["class_part"].size
        counts = [int((result.arrays[f"{m}_overlap_class"][:C] > 0.5).sum()) for m in MATRICES]
        where = f"{result.title}: " if result.cell is not None else ""
        lines.append(f"{where}{counts[0]} of the {C} largest eigenvectors of Hess and {counts[1]} of G")
    return (
        "What each part of Hess = G_class + G_cross + G_within + G_{c=c'} + E contributes to its largest "
        "eigenvalues (u^T part u / λ), the same for G; squared projections of the eigenvectors onto the spans of "
        "the class means (solid) and of the cross-class part (dotted); principal angles between the C largest "
        "eigenvectors and the class means, and between those of Hess and G. More than half inside span{g_c}: "
        f"{'; '.join(lines)}. Training data. {results.where('alignment')}"
    )
