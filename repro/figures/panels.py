"""The kinds of panel that figures are made of: spectra, log spectra, Gram matrices, curves over depth.

Each draws on a given Axes and sets its scales, limits and labels. Spectra come as the record that a measurement stores
and are smoothed here (paper, Algorithm 3 and Section C.7).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from repro.spectra.broadening import (
    EPSILON,
    KAPPA,
    LOG_KAPPA,
    MARGIN,
    Curve,
    gaussian_width,
    linear_curve,
    log_curve,
)
from repro.spectra.record import Spectrum


def spectrum_panel(
    ax: Axes, spectrum: Spectrum, *, color: str, outliers: bool = True, label: str | None = None, band: bool = False
) -> None:
    """Linear λ, logarithmic density: filled bulk, and the leading eigenvalues taken out of it as stems with circles.

    A stem is as high as a single eigenvalue (mass 1/P) stands in this density; an open circle has not converged. What
    has not converged stays in the density, and so does what may have a copy. Without `outliers` there are no stems and
    everything is in the density. With `band` one standard error of the probes is shaded.
    """
    smoothed = spectrum.bulk() if outliers else spectrum
    curve = linear_curve(smoothed.nodes, smoothed.weights)
    width = gaussian_width(smoothed.steps, KAPPA) * (curve.x[-1] - curve.x[0]) / 2
    single = 1 / (spectrum.dim * width * np.sqrt(2 * np.pi))
    floor = 0.1 * single
    _filled(ax, curve, floor, color=color, label=label, band=band)
    if outliers:
        stems(ax, spectrum.eigenvalues, single, floor, color=color, converged=spectrum.converged)
    ax.set_yscale("log")
    ax.set_ylim(floor, max(3 * curve.density.max(), 10 * single))
    ax.set_xlabel("eigenvalue λ")
    ax.set_ylabel("density per unit λ")


def stems(
    ax: Axes,
    positions: np.ndarray,
    height: float,
    floor: float,
    *,
    color: str,
    converged: np.ndarray | None = None,
    label: str | None = None,
) -> None:  # positions, converged [k]
    """Outliers as stems with circles over a logarithmic axis; open circles have not converged."""
    ax.vlines(positions, floor, height, color=color, linewidth=0.8, zorder=3)
    _circles(ax, np.asarray(positions), np.full(len(positions), height), converged, color=color, label=label)


def log_limits(spectra: Iterable[Spectrum], *, epsilon: float = EPSILON) -> tuple[float, float]:
    """One range of |λ| + ε for all spectra of a figure: from ε to the largest, with a margin (paper, C.7).

    It is a factor e at least, also where nothing lies above ε: G of a network that is certain of every label is zero.
    """
    low = np.log(epsilon)
    high = max(low + 1, np.log(max(spectrum.largest for spectrum in spectra) + epsilon))
    room = MARGIN * (high - low)
    return float(np.exp(low - room)), float(np.exp(high + room))


def log_spectrum_panel(
    ax: Axes,
    spectrum: Spectrum,
    *,
    limits: tuple[float, float],
    color: str,
    epsilon: float = EPSILON,
    per_log: bool = False,
    label: str | None = None,
    fill: bool = True,
    linestyle: str = "-",
) -> Curve:
    """Density of |λ| + ε on log-log axes over `limits`; per unit λ as in the paper, or per unit ln λ (C.7).

    The axis ends, for all spectra on it, at a tenth of what a single eigenvalue at the right end has; what is lower is
    clipped there. Returns the curve drawn.
    """
    curve = log_curve(spectrum.nodes, spectrum.weights, epsilon=epsilon, limits=limits, per_log=per_log)
    width = gaussian_width(spectrum.steps, LOG_KAPPA) * np.log(limits[1] / limits[0]) / 2
    single = 1 / (spectrum.dim * width * np.sqrt(2 * np.pi))
    floor = 0.1 * single / (1 if per_log else limits[1])
    _filled(ax, curve, floor, color=color, label=label, fill=fill, linestyle=linestyle)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(*limits)
    _clip_below(ax, floor, 3 * curve.density.max())
    ax.set_xlabel("eigenvalue |λ| + ε")
    ax.set_ylabel("density per unit ln λ" if per_log else "density per unit λ")
    return curve


def _clip_below(ax: Axes, floor: float, top: float) -> None:
    """End the axis at `floor`; where spectra are drawn on it already, at the higher floor and the higher top."""
    if not ax.get_autoscaley_on():
        low, high = ax.get_ylim()
        floor, top = max(floor, low), max(top, high)
    ax.set_ylim(floor, top)


def _filled(
    ax: Axes,
    curve: Curve,
    floor: float,
    *,
    color: str,
    label: str | None,
    band: bool = False,
    fill: bool = True,
    linestyle: str = "-",
) -> None:  # what lies under the floor is not drawn
    shown = np.where(curve.density > floor, curve.density, np.nan)
    ax.plot(curve.x, shown, color=color, label=label, linestyle=linestyle, zorder=2)
    if fill:
        ax.fill_between(curve.x, floor, np.maximum(curve.density, floor), color=color, alpha=0.3, linewidth=0, zorder=1)
    if band:
        low, high = np.maximum(curve.low, floor), np.maximum(curve.high, floor)
        ax.fill_between(curve.x, low, high, color=color, alpha=0.3, linewidth=0, zorder=1.5)


def _circles(
    ax: Axes, x: np.ndarray, y: np.ndarray, converged: np.ndarray | None, *, color: str, label: str | None
) -> None:  # [k]
    """Filled circles, open where the eigenpair has not converged."""
    done = np.ones(len(x), dtype=bool) if converged is None else np.asarray(converged, dtype=bool)
    for which, face in ((done, color), (~done, "white")):
        if which.any():
            (circles,) = ax.plot(
                x[which], y[which], "o", color=color, markersize=3, label=label, zorder=4, clip_on=False
            )
            circles.set(markerfacecolor=face, markeredgewidth=0.7)
            label = None


def matrix_panel(
    ax: Axes, matrix: np.ndarray, *, blocks: Sequence[int] = (), symmetric: bool = True, label: str = ""
) -> None:  # [m, m]; blocks: sizes of consecutive blocks, marked by lines
    """Heat map of a Gram matrix with its class blocks; `symmetric` colours are centred at zero."""
    limit = np.abs(matrix).max() or 1.0
    limits = {"vmin": -limit, "vmax": limit, "cmap": "RdBu_r"} if symmetric else {"vmin": 0, "cmap": "viridis"}
    image = ax.imshow(matrix, interpolation="nearest", rasterized=True, **limits)
    for edge in np.cumsum(blocks)[:-1] - 0.5:
        ax.axhline(edge, color="#888888", linewidth=0.3)
        ax.axvline(edge, color="#888888", linewidth=0.3)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(True)
    ax.figure.colorbar(image, ax=ax, shrink=0.8, label=label, pad=0.02)


def depth_panel(
    ax: Axes,
    layers: Sequence[int],
    values: np.ndarray,
    *,
    color: str,
    label: str | None = None,
    log: bool = True,
    marker: str = "o",
    linestyle: str = "-",
) -> None:  # values [layers] or [layers, curves]
    """One or several quantities over the layers, input on the left."""
    curves = np.asarray(values).reshape(len(layers), -1)
    for index, curve in enumerate(curves.T):
        ax.plot(
            layers,
            curve,
            marker=marker,
            markersize=3,
            linestyle=linestyle,
            color=color,
            label=label if index == 0 else None,
        )
    if log:
        ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    ax.set_xlabel("layer")
