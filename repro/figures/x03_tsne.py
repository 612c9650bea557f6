"""Extra figure x3: t-SNE of the companion paper's class and cross-class means (Papyan 2019, arXiv 1901.08244)."""

from __future__ import annotations

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from repro.figures.results import Results
from repro.figures.style import PAGE, subplots

MEASUREMENTS = ("class_means",)
PAPER = "The t-SNE of these means, with perplexity C, is the companion paper's; the random start with seed 0 is ours."
COLUMNS = 3  # panels in a row


def draw(results: Results) -> Figure:
    """One panel per network: δ_c (large) and δ_{c,c'} (small), coloured by c."""
    found = results.of("class_means")
    columns = min(COLUMNS, len(found))
    figure, axes = subplots(-(-len(found) // columns), columns, width=PAGE * (columns + 1) / 4, row_height=2.1)
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    for ax, result in zip(axes.flat, found):
        _panel(ax, result.arrays["companion_means"], len(result.arrays["weights"]))
        if result.cell is not None:
            ax.set_title(result.title, fontsize="small")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="class c", loc="outside right center")
    return figure


def _panel(ax: Axes, gram: np.ndarray, classes: int) -> None:  # gram [C², C²]
    if classes < 2:
        raise KeyError("means of a second class")
    points = embedding(gram, classes)
    c, k = np.divmod(np.arange(classes**2), classes)
    colors = sns.color_palette("husl", classes)
    for label in range(classes):
        cross, own = points[(c == label) & (k != label)], points[(c == label) & (k == label)]
        ax.scatter(cross[:, 0], cross[:, 1], s=7, color=colors[label], linewidths=0)
        ax.scatter(
            own[:, 0],
            own[:, 1],
            s=45,
            color=colors[label],
            edgecolors="#000000",
            linewidths=0.6,
            label=str(label),
            zorder=3,
        )
    ax.set_xticks([])
    ax.set_yticks([])


def embedding(gram: np.ndarray, perplexity: float) -> np.ndarray:  # [K, K] -> [K, 2]
    """t-SNE from the distances |a − b| that the inner products imply; seed 0."""
    square = np.diag(gram)
    distances = np.sqrt((square[:, None] + square - 2 * gram).clip(min=0))
    np.fill_diagonal(distances, 0)
    return TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=0).fit_transform(distances)


def caption(results: Results) -> str:
    return (
        "t-SNE of the unweighted class means δ_c (large) and cross-class means δ_c,c' (small, coloured by class c) "
        "of the gradients √p g on the training set, from their distances, with perplexity C and a random "
        f"start. {results.where('class_means')}"
    )
