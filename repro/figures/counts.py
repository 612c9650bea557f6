"""Counted eigenvalues of G: what the figures of the exact spectrum are made of.

Histograms over a logarithmic axis, what Lanczos estimates as counts too; marks at the parts' own eigenvalues; and the
colour of an eigenvalue by where it comes from.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from repro.figures.style import COLORS
from repro.spectra.broadening import EPSILON, log_curve
from repro.spectra.exact import PARTS, ExactSpectrum
from repro.spectra.record import Spectrum

NAMES = {"class": "$G_{class}$", "cross": "$G_{cross}$", "within": "$G_{within}$", "same": "$G_{c=c'}$"}
PER_DECADE = 8  # bins
FLOOR = 0.5  # less than a single eigenvalue, at the foot of the axis
HEADROOM = 10.0  # above the fullest bin, for legends
SMALLEST = 1e-7  # of the largest eigenvalue: what is below is left out of histograms
ZEROS = 3 * EPSILON  # below it a log spectrum of Lanczos shows the eigenvalues that are zero


def bins(largest: float, smallest: float | None = None) -> np.ndarray:  # -> [bins + 1]
    """Edges of equal bins on a logarithmic axis, up to the largest eigenvalue."""
    high = np.log10(largest) + 0.5 / PER_DECADE
    low = np.log10(SMALLEST * largest if smallest is None else smallest)
    return np.logspace(low, high, max(2, round((high - low) * PER_DECADE) + 1))


def count(eigenvalues: np.ndarray, edges: np.ndarray) -> np.ndarray:  # -> [bins]
    """How many eigenvalues lie in each bin."""
    return np.histogram(eigenvalues, edges)[0].astype(float)


def estimated_count(spectrum: Spectrum, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # -> [points] each
    """Eigenvalues λ, and how many a bin around each holds by the log spectrum of Lanczos; not where it shows zeros."""
    limits = (min(EPSILON, edges[0]), edges[-1] + EPSILON)
    curve = log_curve(spectrum.nodes, spectrum.weights, limits=limits, per_log=True)  # fraction of P per unit ln λ
    shown = curve.x > ZEROS
    return curve.x[shown], curve.density[shown] * spectrum.dim * np.log(edges[1] / edges[0])


def count_panel(
    ax: Axes,
    spectrum: np.ndarray | Spectrum,
    edges: np.ndarray,
    *,
    color: str,
    label: str | None = None,
    fill: bool = False,
    alpha: float = 0.3,
    linestyle: str = "-",
) -> None:
    """Eigenvalues per bin on log-log axes: steps where they are counted, a curve where Lanczos estimates them."""
    if isinstance(spectrum, np.ndarray):
        x, y = np.repeat(edges, 2), np.concatenate([[0], np.repeat(count(spectrum, edges), 2), [0]])
        empty = (y == 0) & (np.append(y[1:], 0) == 0) & (np.append(0, y[:-1]) == 0)
    else:
        x, y = estimated_count(spectrum, edges)
        empty = y < FLOOR
    ax.plot(x, np.where(empty, np.nan, y.clip(min=FLOOR)), color=color, label=label, linestyle=linestyle, zorder=2)
    if fill:
        ax.fill_between(x, FLOOR, y.clip(min=FLOOR), color=color, alpha=alpha, linewidth=0, zorder=1)
    ax.set(xscale="log", yscale="log", xlim=(edges[0], edges[-1]), xlabel="eigenvalue λ", ylabel="eigenvalues per bin")
    ax.set_ylim(FLOOR, HEADROOM * max(np.nanmax(line.get_ydata(), initial=1) for line in ax.lines))  # for all so far


def mark_eigenvalues(ax: Axes, eigenvalues: np.ndarray, *, color: str, row: int = 0) -> None:  # [k]
    """A tick above the lower edge of the panel at each eigenvalue of a part; `row` counts from below."""
    low = 0.01 + 0.055 * row
    positive = eigenvalues[eigenvalues > 0]
    ax.vlines(
        positive, low, low + 0.045, transform=ax.get_xaxis_transform(), color=color, linewidth=0.5, zorder=3
    )  # fmt: skip


def mixed_colors(spectrum: ExactSpectrum) -> np.ndarray:  # -> [R, 3]
    """The colour of each eigenvalue: those of the parts, mixed by their shares in it; white where it is zero."""
    shares = np.nan_to_num(spectrum.shares[list(PARTS)].to_numpy()).clip(min=0)
    total = shares.sum(axis=1, keepdims=True)
    mixed = shares @ np.array([to_rgb(COLORS[part]) for part in PARTS]) / np.where(total > 0, total, 1)
    return np.where(total > 0, mixed, 1.0).clip(0, 1)
