"""Figure 2: the block structure of class and cross-class means, as measured inner products."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.panels import matrix_panel
from repro.figures.results import Results
from repro.figures.style import PAGE, label_panels, subplots

MEASUREMENTS = ("class_means",)
PAPER = (
    "The paper's figure is likely a diagram of this structure or of the knockouts; that ours shows measured matrices "
    "is our choice."
)
SMALLEST = 1e-12  # probability that the colours still tell apart


def draw(results: Results) -> Figure:
    """One row per network: weights, cosines of the class means, and of the cross-class means in two orders."""
    found = results.of("class_means")
    figure, axes = subplots(len(found), 4, width=PAGE, row_height=1.75)
    for line, result in zip(axes, found):
        weights = result.arrays["weights"]
        C = len(weights)
        if C < 2:
            raise KeyError("means of a second class")
        gram = result.arrays["means"].reshape(C, C, C, C)
        whole = weights.sum(axis=1) + result.arrays.get("others", 0)  # of labels that were not chosen
        p = weights / whole[:, None].clip(min=SMALLEST)
        matrix_panel(line[0], -np.log10(p.clip(min=SMALLEST)), symmetric=False)
        _name(line[0], "−log$_{10}$ mean p", "would-be label c'", "class c")
        own = np.arange(C)
        matrix_panel(line[1], cosines(gram[own, own][:, own, own]))
        _name(line[1], "cosines of $g_c$", "class d", "class c")
        c, k = np.nonzero(~np.eye(C, dtype=bool))
        cross = cosines(gram[c, k][:, c, k])
        matrix_panel(line[2], cross, blocks=[C - 1] * C)
        _name(line[2], "cosines of $g_{c,c'}$, by c", "(d, d')", "(c, c')")
        by_label = np.lexsort((c, k))
        matrix_panel(line[3], cross[np.ix_(by_label, by_label)], blocks=[C - 1] * C)
        _name(line[3], "cosines of $g_{c,c'}$, by c'", "(d, d')", "(c, c')")
        if result.cell is not None and len(found) > 1:
            line[0].set_ylabel(f"{result.title}\nclass c", fontsize="x-small")
    label_panels(axes.flat)
    return figure


def cosines(gram: np.ndarray) -> np.ndarray:  # [K, K] -> [K, K]
    """Inner products over lengths; zero for a mean that is zero."""
    length = np.sqrt(np.diag(gram).clip(min=0))
    inverse = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
    return inverse[:, None] * gram * inverse


def _name(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize="small")
    ax.set_xlabel(x)
    ax.set_ylabel(y)


def caption(results: Results) -> str:
    return (
        "Measured class/cross-class structure on the training set: the mean probability of each would-be label c' "
        "in each class c (its share of the weights w), and the cosines between class means g_c and between "
        "cross-class means g_c,c' of the gradients, ordered by class and by would-be label (grey lines separate "
        f"the blocks). {results.where('class_means')}"
    )
