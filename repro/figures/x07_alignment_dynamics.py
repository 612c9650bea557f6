"""Extra figure x7: how the outliers' eigenvectors of G turn into the span of the class means over training."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.results import Results
from repro.figures.style import COLORS, PAGE, label_panels, subplots

MEASUREMENTS = ("alignment_dynamics",)
PAPER = "The paper has no such numbers."
PARTS = {"class": "$G_{class}$", "cross": "$G_{cross}$", "same": "$G_{c=c'}$", "within": "$G_{within}$"}


def draw(results: Results) -> Figure:
    """One row per network: projections onto span{g_c}, principal angles, and shares of the eigenvalues, by epoch."""
    found = results.of("alignment_dynamics")
    figure, axes = subplots(len(found), 3, width=PAGE, row_height=1.9)
    for line, result in zip(axes, found):
        _projections(line[0], result.arrays)
        _angles(line[1], result.arrays)
        _shares(line[2], result.arrays)
        for ax in line:
            _epochs(ax, result.arrays["epochs"])
        if result.cell is not None and len(found) > 1:
            name = result.title.replace(", ", "\n", 1)
            line[0].set_ylabel(f"{name}\nsquared projection", fontsize="x-small")
    handles = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    label_panels(axes.flat)
    return figure


def _projections(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Each eigenvector (dots, open where not converged), their mean, and the share that is more than half inside."""
    overlap, converged = arrays["overlap_class"], arrays["converged"]  # [T, C − 1]
    x = np.arange(len(overlap))
    at, color = np.broadcast_to(x[:, None], overlap.shape), COLORS["gauss_newton"]
    for which, face in ((converged, color), (~converged, "white")):
        ax.plot(at[which], overlap[which], "o", color=color, markerfacecolor=face, markersize=2, markeredgewidth=0.5)
    ax.plot(x, overlap.mean(axis=1), color=color, label="mean over C−1")
    ax.plot(x, (overlap > 0.5).mean(axis=1), "--", color=COLORS["whole"], label="fraction above 1/2")
    ax.axhline(0.5, color="#888888", linewidth=0.6)
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel("squared projection")
    ax.set_title("eigenvectors onto span{$g_c$}", fontsize="small")


def _angles(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Largest, median and smallest cosine: the smallest tells whether the whole eigenspace is in the span."""
    cosines = arrays["class_cosines"]
    x, color = np.arange(len(cosines)), COLORS["class"]
    summaries = {"largest": ("-", cosines.max(axis=1)), "median": ("--", np.median(cosines, axis=1)),
                 "smallest": (":", cosines.min(axis=1))}  # fmt: skip
    for name, (line, values) in summaries.items():
        ax.plot(x, values, line, color=color, marker="o", markersize=2, label=f"{name} cosine")
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel("cosine of principal angle")
    ax.set_title("eigenspace against span{$g_c$}", fontsize="small")


def _shares(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Bars that add up to one: what each part contributes to the sum of the C − 1 eigenvalues."""
    values = arrays["eigenvalues"]
    total = values.sum(axis=1)
    shares = {p: (arrays[f"share_{p}"] * values).sum(axis=1) / total for p in PARTS if p != "within"}
    shares["within"] = 1 - sum(shares.values())
    bottom = np.zeros(len(total))
    for part, label in PARTS.items():
        ax.bar(np.arange(len(total)), shares[part], bottom=bottom, color=COLORS[part], width=0.8, label=label)
        bottom = bottom + shares[part]
    ax.set_ylabel("share of their sum")
    ax.set_title("top C−1 eigenvalues of $G$", fontsize="small")


def _epochs(ax: Axes, epochs: np.ndarray) -> None:
    ax.set_xticks(np.arange(len(epochs)), [str(epoch) for epoch in epochs])
    ax.set_xlabel("epoch")


def caption(results: Results) -> str:
    lines = []
    for result in results.of("alignment_dynamics"):
        inside = (result.arrays["overlap_class"] > 0.5).sum(axis=1)
        epochs, k = result.arrays["epochs"], result.arrays["overlap_class"].shape[1]
        where = f"{result.title}: " if result.cell is not None else ""
        lines.append(f"{where}{inside[0]} of {k} at epoch {epochs[0]}, {inside[-1]} at epoch {epochs[-1]}")
    return (
        "The C−1 largest eigenpairs of the training G at checkpoints of the training: squared projections of the "
        "eigenvectors onto the span of the class means of the same epoch (dots, open where the eigenpair has not "
        "converged), their mean, and the fraction above one half; largest, median and smallest cosine of the "
        "principal angles; what each part of G contributes to the sum of these eigenvalues (Σ u^T part u / Σ λ). "
        f"More than half inside span{{g_c}}: {'; '.join(lines)}. "
        f"{results.where('alignment_dynamics')}"
    )
