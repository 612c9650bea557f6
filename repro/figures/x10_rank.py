"""Extra figure x10: every eigenvalue of G by rank, coloured by where it comes from, over training and sample size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro.figures.counts import mixed_colors
from repro.figures.results import Results, is_exact
from repro.figures.style import COLORS, PAGE, label_panels
from repro.spectra.exact import ExactSpectrum, over_epochs, stored_spectrum
from repro.storage.results import Result

MEASUREMENTS = ("exact_spectrum",)
NAMES = {
    "class": "class means: the outliers",
    "cross": "cross-class means: the mini-bulk",
    "within": "scatter within classes: the bulk",
    "same": "means of the own class",
}
DEPTH = 2e-6  # of the largest eigenvalue: what is below is not shown
NOTABLE = 1.3  # ratio of neighbouring eigenvalues from which a gap is marked
SMALL = 4  # small panels of a row


class Panel(NamedTuple):
    """One spectrum with its title."""

    title: str
    spectrum: ExactSpectrum


def draw(results: Results) -> Figure:
    """For each (data, network) its largest sample at the end in large, beside it earlier epochs, and other samples."""
    groups = _groups(results)
    figure = Figure(figsize=(PAGE, 3.7 * len(groups) + 0.3), layout="constrained")
    grid = figure.add_gridspec(4 * len(groups), 2 + SMALL, width_ratios=[1.15] * 2 + [1] * SMALL)
    letters = []
    for i, group in enumerate(groups):
        top, first = 4 * i, _main_panel(group[-1])
        main, shares = figure.add_subplot(grid[top : top + 3, :2]), figure.add_subplot(grid[top + 3, :2])
        _ranked(main, first, size=11)
        _mark_gap(main, first.spectrum)
        main.set(xlabel="", ylabel="eigenvalue of G, over the largest")
        main.set_title(f"{group[-1].data_title}, {group[-1].model_title}\n{first.title}", fontsize="small")
        _share_strip(shares, first.spectrum)
        letters += [main, shares]
        for row, panels in enumerate((_epochs(group[-1]), _sizes(group))):
            for column, panel in enumerate(panels):
                ax = figure.add_subplot(grid[top + 2 * row : top + 2 * row + 2, 2 + column])
                _ranked(ax, panel, size=4)
                ax.tick_params(labelleft=column == 0, labelbottom=row == 1 or i == len(groups))
                letters.append(ax)
    handles = [
        Line2D([], [], marker="o", linestyle="none", markersize=5, color=COLORS[part], label=label)
        for part, label in NAMES.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize="small", handletextpad=0.1)
    label_panels(letters)
    return figure


def _groups(results: Results) -> list[list[Result]]:
    """The cells that have exact spectra, by data and network, each group by sample size.

    Raises:
        ValueError: there are none.
    """
    groups: dict[str, list[Result]] = {}
    for result in filter(is_exact, results.of("exact_spectrum")):
        groups.setdefault(f"{result.data_title}, {result.model_title}", []).append(result)
    if not groups:
        raise ValueError(
            "no cell of this figure is small enough for the exact spectrum of G: raise"
            " measurements.exact_spectrum.limit, or show smaller samples"
        )
    return [sorted(group, key=_size) for group in groups.values()]


def _size(result: Result) -> int:
    return result.cell.n_per_class if result.cell else 0


def _main_panel(result: Result) -> Panel:
    epoch, spectrum = list(over_epochs(result.arrays).items())[-1]
    size = f"n = {_size(result)} per class" if result.cell else "own network"
    return Panel(size + (f", epoch {epoch}" if epoch >= 0 else ""), spectrum)


def _epochs(result: Result) -> list[Panel]:
    earlier = list(over_epochs(result.arrays).items())[:-1]
    return [Panel(f"epoch {epoch}", spectrum) for epoch, spectrum in earlier[-SMALL:]]


def _sizes(group: list[Result]) -> list[Panel]:
    """The other samples, the largest of them, and test data."""
    largest = group[-1]
    tested = "test_eigenvalues" in largest.arrays
    others = group[:-1][-(SMALL - tested) :]
    panels = [Panel(f"n = {_size(result)}", stored_spectrum(result.arrays)) for result in others]
    return panels + ([Panel("test data", stored_spectrum(largest.arrays, "test_"))] if tested else [])


def _shown(spectrum: ExactSpectrum) -> int:
    """How many eigenvalues are more than rounding, and not below the axis."""
    return int((spectrum.eigenvalues > max(spectrum.arrays["resolution"], DEPTH * spectrum.eigenvalues[0])).sum())


def _ranked(ax: Axes, panel: Panel, *, size: float) -> None:
    """Every eigenvalue as a dot; those that scatter within classes first, so that what is rare stays on top."""
    spectrum, shown = panel.spectrum, _shown(panel.spectrum)
    values, colors = spectrum.eigenvalues[:shown], mixed_colors(spectrum)
    order = np.argsort(-spectrum.arrays["share_within"][:shown], kind="stable")
    ax.scatter(order + 1, values[order] / values[0], c=colors[order], s=size, linewidths=0, zorder=2)
    ax.set(xscale="log", yscale="log", xlim=(0.7, 1.6 * len(spectrum.eigenvalues)), ylim=(DEPTH, 3), xlabel="rank")
    ax.set_title(panel.title, fontsize="small")


def _mark_gap(ax: Axes, spectrum: ExactSpectrum) -> None:
    """The ratio across the wider of the gaps after C − 1 and after C eigenvalues, if it is notable."""
    values, C = spectrum.eigenvalues / spectrum.eigenvalues[0], len(spectrum.arrays["class_part"])
    after = max((k for k in (C - 1, C) if 0 < k < len(values)), key=lambda k: values[k - 1] / values[k], default=0)
    if not after or values[after - 1] < NOTABLE * values[after]:
        return
    low, high = values[after], values[after - 1]
    ax.axhspan(low, high, color="#000000", alpha=0.12, linewidth=0, zorder=0)
    text = f"gap after {after}: factor {high / low:.2g}"
    ax.annotate(text, (len(values), np.sqrt(low * high)), ha="right", va="center", fontsize="x-small")


def _share_strip(ax: Axes, spectrum: ExactSpectrum) -> None:
    """What each part contributes to each eigenvalue, stacked to one."""
    rank = np.arange(1, _shown(spectrum) + 1)
    edges = np.concatenate([rank - 0.5, rank[-1:] + 0.5])
    low = np.zeros(len(rank))
    for part in NAMES:
        high = low + spectrum.arrays[f"share_{part}"][: len(rank)].clip(min=0)
        below, above = (np.append(y, y[-1]) for y in (low, high))
        ax.fill_between(edges, below, above, step="post", color=COLORS[part], linewidth=0)
        low = high
    ax.set(xscale="log", xlim=(0.7, 1.6 * len(spectrum.eigenvalues)), ylim=(0, 1), xlabel="rank", ylabel="share")


def caption(results: Results) -> str:
    return (
        "Every eigenvalue of G, the Gauss-Newton part of the Hessian of the training loss, by its rank, each computed "
        "exactly. Its colour mixes those of the four parts of G by what each contributes to it (u^T part u / λ, which "
        "sum to one; below, stacked); of dots that overlap those least from G_within are on top. Large: the largest "
        f"sample after training, with the gap after the outliers shaded where it is a factor of {NOTABLE:g} or more. "
        "Small: the same network at earlier epochs; smaller samples; and "
        f"test data, the first examples of each class. Eigenvalues below {DEPTH:g} of the largest are not shown. The "
        f"figure is ours. {results.where('exact_spectrum')}"
    )
