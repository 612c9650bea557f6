"""Figure 6: the log spectrum of G and of its parts over the epochs of training and over the sample size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.panels import log_limits, log_spectrum_panel
from repro.figures.results import Results
from repro.figures.style import COLORS, PAGE, label_panels, subplots
from repro.spectra.broadening import EPSILON, LOG_KAPPA
from repro.spectra.record import Spectrum
from repro.storage.results import Result

MEASUREMENTS = ("dynamics",)
MATRICES = {"gauss_newton": "$G$", "within": "$G_{within}$"}


class Snapshot(NamedTuple):
    """The spectra at one epoch of one network."""

    at: int  # the epoch, or the sample size per class
    spectra: dict[str, Spectrum]  # of G and of G_within
    parts: dict[str, np.ndarray]  # [rank] each, descending: the exact eigenvalues of G_class and of G_cross
    rank: int  # largest rank that G can have, N (C − 1) or P


class Series(NamedTuple):
    """One row of panels: snapshots over epochs, or over sample sizes."""

    title: str
    unit: str
    snapshots: list[Snapshot]


def draw(results: Results) -> Figure:
    """One row over epochs for the largest sample of each (data, network), then one over its sample sizes."""
    rows = _series(results.of("dynamics"))
    figure, axes = subplots(len(rows), 3, width=PAGE, row_height=2.0)
    for line, series in zip(axes, rows):
        limits = log_limits(spectrum for snapshot in series.snapshots for spectrum in snapshot.spectra.values())
        for ax, matrix in zip(line, MATRICES):
            _spectra(ax, series, matrix, limits)
        _positions(line[2], series)
        line[0].set_title(f"{series.title}:\n$G$", loc="left", fontsize="small")
        line[1].set_ylabel("")
    figure.legend(*axes[0, 2].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    label_panels(axes.flat)
    return figure


def _series(found: list[Result]) -> list[Series]:
    groups: dict[str, list[Result]] = {}
    for result in found:
        groups.setdefault(f"{result.data_title}, {result.model_title}", []).append(result)
    rows: list[Series] = []
    for title, members in groups.items():
        members = sorted(members, key=lambda result: result.cell.n_per_class if result.cell else 0)
        largest = members[-1]
        epochs = [_snapshot(largest, i, int(epoch)) for i, epoch in enumerate(largest.arrays["epochs"])]
        assert largest.cell is not None
        rows.append(Series(f"{title}, n = {largest.cell.n_per_class}", "epoch", epochs))
        if len(members) > 1:
            sizes = [_snapshot(result, -1, result.cell.n_per_class) for result in members if result.cell]
            rows.append(Series(f"{title}, last epoch", "examples per class", sizes))
    return rows


def _snapshot(result: Result, index: int, at: int) -> Snapshot:
    assert result.cell is not None
    arrays = result.arrays
    dim, C = int(arrays["gauss_newton_dim"]), arrays["class_part"].shape[1]
    spectra = {matrix: Spectrum.from_arrays(arrays, matrix, at=index, dim=dim) for matrix in MATRICES}
    parts = {part: arrays[f"{part}_part"][index] for part in ("class", "cross")}
    return Snapshot(at, spectra, parts, min(dim, result.cell.n_per_class * C * (C - 1)))


def _spectra(ax: Axes, series: Series, matrix: str, limits: tuple[float, float]) -> None:
    """The log spectra of one matrix, one curve per snapshot."""
    for snapshot, color in zip(series.snapshots, sns.color_palette("viridis_r", len(series.snapshots))):
        log_spectrum_panel(ax, snapshot.spectra[matrix], limits=limits, color=color, fill=False, label=f"{snapshot.at}")
    ax.set_title(MATRICES[matrix], loc="left", fontsize="small")
    if matrix == "gauss_newton":
        ax.legend(title=series.unit, loc="upper right", fontsize="x-small", ncols=2, handlelength=1)


def _positions(ax: Axes, series: Series) -> None:
    """Largest (solid) and mean non-zero (dashed) eigenvalue of each part, and the C largest of G (dots)."""
    x = np.arange(len(series.snapshots))
    outliers = np.stack([snapshot.spectra["gauss_newton"].eigenvalues for snapshot in series.snapshots])
    for rank, curve in enumerate(_positive(outliers).T):
        ax.plot(
            x, curve, ".", color=COLORS["gauss_newton"], markersize=3, label="$G$, C largest" if rank == 0 else None
        )
    for part in ("class", "cross", "within"):
        largest, mean = np.array([_edge_and_mean(snapshot, part) for snapshot in series.snapshots]).T
        ax.plot(x, _positive(largest), color=COLORS[part], label=f"$G_{{{part}}}$, largest")
        ax.plot(x, _positive(mean), color=COLORS[part], linestyle="--", label=f"$G_{{{part}}}$, mean")
    ax.set_yscale("log")
    ax.set_xticks(x, [str(snapshot.at) for snapshot in series.snapshots])
    ax.set_xlabel(series.unit)
    ax.set_ylabel("eigenvalue λ")
    ax.set_ylim(bottom=max(ax.get_ylim()[0], 1e-8 * np.nanmax(outliers)))
    ax.set_title("edges and outliers", loc="left", fontsize="small")


def _positive(values: np.ndarray) -> np.ndarray:
    """What a logarithmic axis can show."""
    return np.where(values > 0, values, np.nan)


def _edge_and_mean(snapshot: Snapshot, part: str) -> tuple[float, float]:
    """The largest eigenvalue and the mean of the non-zero ones: of G_within by the mean of its quadratures."""
    if part != "within":
        exact = snapshot.parts[part]
        return float(exact[0]), float(exact.mean())
    within = snapshot.spectra["within"]
    return within.largest, within.trace / snapshot.rank


def caption(results: Results) -> str:
    return (
        "Log spectra of G and of G_within on the training set over the epochs of training (upper row of each "
        "network, its largest sample) and over the number of examples per class (lower row, last epoch). Right: "
        "the C largest eigenvalues of G, and the largest and the mean non-zero eigenvalue of each part, exact for "
        "G_class and G_cross. That the figure shows the log spectrum of G and its parts over epochs and sample "
        f"sizes is certain; which epochs, and the curves on the right, are ours. ε = {EPSILON:g}, κ = {LOG_KAPPA:g}. "
        f"{results.where('dynamics')}"
    )
