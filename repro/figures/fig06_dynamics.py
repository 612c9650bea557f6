"""Figure 6: the spectrum of G and of its parts over the epochs of training and over the sample size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.counts import PER_DECADE, SMALLEST, bins, count_panel
from repro.figures.results import Results, is_exact
from repro.figures.style import COLORS, PAGE, label_panels, subplots
from repro.spectra.broadening import EPSILON, LOG_KAPPA
from repro.spectra.exact import ExactSpectrum, over_epochs
from repro.spectra.record import Spectrum
from repro.storage.results import Result

MEASUREMENTS = ("exact_spectrum",)
FALLBACK = "dynamics"
PAPER = (
    "That the figure shows the log spectrum of G and its parts over epochs and sample sizes is certain; which epochs, "
    "and the curves on the right, are ours."
)
MATRICES = {"gauss_newton": "$G$", "within": "$G_{within}$"}


class Snapshot(NamedTuple):
    """The spectra at one epoch of one network."""

    at: int  # the epoch, or the sample size per class
    spectra: dict[str, np.ndarray | Spectrum]  # of G and of G_within: all eigenvalues, or Lanczos's estimate
    outliers: np.ndarray  # [C], the largest eigenvalues of G
    edges: dict[str, tuple[float, float]]  # of each part: its largest eigenvalue, and the mean of those not zero


class Series(NamedTuple):
    """One row of panels: snapshots over epochs, or over sample sizes."""

    title: str
    unit: str
    snapshots: list[Snapshot]


def draw(results: Results) -> Figure:
    """One row over epochs for the largest sample of each (data, network), then one over its sample sizes."""
    rows = _series(results.of("exact_spectrum"))
    figure, axes = subplots(len(rows), 3, width=PAGE, row_height=2.0)
    for line, series in zip(axes, rows):
        tops = [snapshot.outliers[0] for snapshot in series.snapshots]
        edges = bins(max(tops), SMALLEST * min(tops))
        for ax, matrix in zip(line, MATRICES):
            _spectra(ax, series, matrix, edges)
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
        assert largest.cell is not None
        epochs = _snapshots(largest)
        rows.append(Series(f"{title}, n = {largest.cell.n_per_class}", "epoch", epochs))
        if len(members) > 1:
            sizes = [_snapshots(member)[-1]._replace(at=member.cell.n_per_class) for member in members if member.cell]
            rows.append(Series(f"{title}, last epoch", "examples per class", sizes))
    return rows


def _snapshots(result: Result) -> list[Snapshot]:
    """One for each checkpoint stored."""
    if is_exact(result):
        return [_counted(epoch, spectrum) for epoch, spectrum in over_epochs(result.arrays).items()]
    return [_estimated(result, i, int(epoch)) for i, epoch in enumerate(result.arrays["epochs"])]


def _counted(epoch: int, spectrum: ExactSpectrum) -> Snapshot:
    """Of G_within the eigenvalues of G to which it contributes most: its own are not computed at every epoch."""
    values = spectrum.eigenvalues
    within = spectrum.of("within")
    mean = float(np.nansum(values * spectrum.arrays["share_within"])) / len(values)
    edges = {part: _edge_and_mean(spectrum.part(part)) for part in ("class", "cross")}
    edges["within"] = (float(within.max(initial=0)), mean)
    C = len(spectrum.arrays["class_part"])
    return Snapshot(epoch, {"gauss_newton": values, "within": within}, values[:C], edges)


def _estimated(result: Result, index: int, epoch: int) -> Snapshot:
    assert result.cell is not None
    arrays = result.arrays
    dim, C = int(arrays["gauss_newton_dim"]), arrays["class_part"].shape[1]
    G, within = (Spectrum.from_arrays(arrays, matrix, at=index, dim=dim) for matrix in MATRICES)
    rank = min(dim, result.cell.n_per_class * C * (C - 1))
    edges = {part: _edge_and_mean(arrays[f"{part}_part"][index]) for part in ("class", "cross")}
    edges["within"] = (within.largest, within.trace / rank)
    return Snapshot(epoch, {"gauss_newton": G, "within": within}, np.sort(G.eigenvalues)[::-1], edges)


def _edge_and_mean(eigenvalues: np.ndarray) -> tuple[float, float]:  # [rank], descending
    return float(eigenvalues[0]), float(eigenvalues.mean())


def _spectra(ax: Axes, series: Series, matrix: str, edges: np.ndarray) -> None:
    """The spectra of one matrix, one histogram or curve per snapshot."""
    for snapshot, color in zip(series.snapshots, sns.color_palette("viridis_r", len(series.snapshots))):
        count_panel(ax, snapshot.spectra[matrix], edges, color=color, label=f"{snapshot.at}")
    ax.set_title(MATRICES[matrix], loc="left", fontsize="small")
    if matrix == "gauss_newton":
        ax.legend(
            title=series.unit, title_fontsize="x-small", loc="upper left", fontsize="x-small", ncols=3, handlelength=1
        )


def _positions(ax: Axes, series: Series) -> None:
    """Largest (solid) and mean non-zero (dashed) eigenvalue of each part, and the C largest of G (dots)."""
    x = np.arange(len(series.snapshots))
    outliers = np.stack([snapshot.outliers for snapshot in series.snapshots])
    for rank, curve in enumerate(_positive(outliers).T):
        ax.plot(
            x, curve, ".", color=COLORS["gauss_newton"], markersize=3, label="$G$, C largest" if rank == 0 else None
        )
    for part in ("class", "cross", "within"):
        largest, mean = np.array([snapshot.edges[part] for snapshot in series.snapshots]).T
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


def caption(results: Results) -> str:
    found = results.of("exact_spectrum")
    estimated = [result.title for result in found if not is_exact(result)]
    counted = (
        f"Steps: every eigenvalue, computed and counted, {PER_DECADE} bins per decade; as those of G_within count the "
        "eigenvalues of G to which it contributes most. "
    )
    lanczos = (
        f"Curves: estimated by Lanczos, as there are too many examples to count eigenvalues ({'; '.join(estimated)}), "
        f"smoothed as log spectra with ε = {EPSILON:g}, κ = {LOG_KAPPA:g}. "
    )
    return (
        "Spectra of G and of G_within on the training set over the epochs of training (upper row of each network, its "
        "largest sample) and over the number of examples per class (lower row, last epoch). "
        f"{counted if len(estimated) < len(found) else ''}{lanczos if estimated else ''}Right: the C largest "
        "eigenvalues of G, and the largest and the mean non-zero eigenvalue of each part, exact for G_class and "
        f"G_cross. {results.where('exact_spectrum')}"
    )
