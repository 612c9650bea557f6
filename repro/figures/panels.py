"""The kinds of panel figures are made of: spectra, log spectra, scree plots, Gram matrices, curves over depth.

Each draws on a given Axes and sets its scales, limits and labels. Spectra come as Gauss quadrature
(nodes and weights [probes, M]) and are smoothed here (paper, Algorithm 3 and Section C.7).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from repro.linalg.broadening import broaden


def kernel_width(steps: int, kappa: float) -> float:
    """σ = 2 / ((M−1) √(8 ln κ)) for a spectrum scaled to [−1, 1] (paper, Algorithm 3)."""
    return 2 / (max(steps - 1, 1) * np.sqrt(8 * np.log(kappa)))


def without_outliers(
    nodes: np.ndarray, weights: np.ndarray, eigenvalues: np.ndarray
) -> np.ndarray:  # [probes, M], [probes, M], [k] -> weights [probes, M]
    """Quadrature weights of the rest of the spectrum: the node that stands for an eigenvalue loses its mass.

    A node stands for an eigenvalue if it is its nearest one and lies within a hundredth of the spectrum's width.
    """
    weights = weights.copy()
    near = 0.01 * (nodes.max() - nodes.min())
    for probe, probe_nodes in enumerate(nodes):
        for eigenvalue in eigenvalues:
            distance = np.where(weights[probe] > 0, np.abs(probe_nodes - eigenvalue), np.inf)
            if distance.min() <= near:
                weights[probe, distance.argmin()] = 0
    return weights


def spectrum_panel(
    ax: Axes,
    nodes: np.ndarray,
    weights: np.ndarray,
    dim: int,
    *,
    color: str,
    eigenvalues: np.ndarray | None = None,
    converged: np.ndarray | None = None,
    kappa: float = 3.0,
    points: int = 1024,
    margin: float = 0.05,
    label: str | None = None,
    band: bool = False,
) -> None:  # nodes, weights [probes, M]; eigenvalues, converged [k]
    """Linear λ, logarithmic density: filled bulk, and `eigenvalues` taken out of it as stems with circles.

    A stem is as high as a single eigenvalue stands in this density (mass 1/P); an open circle did not converge.
    With `band` the range of the probes is shaded. Without `eigenvalues` nothing is deflated.
    """
    outliers = np.empty(0) if eigenvalues is None else np.asarray(eigenvalues)
    rest = without_outliers(nodes, weights, outliers)
    kept = nodes[rest > 0]
    half_width = (kept.max() - kept.min()) / 2 or 1.0
    width = half_width * kernel_width(nodes.shape[1], kappa)
    grid = np.linspace(
        kept.min() - 2 * margin * half_width - 3 * width, kept.max() + 2 * margin * half_width + 3 * width, points
    )
    density = broaden(nodes, rest, grid, width)  # [probes, K]
    single = 1 / (dim * width * np.sqrt(2 * np.pi))
    floor = 0.1 * single
    _filled(ax, grid, density, floor, color=color, label=label, band=band)
    if len(outliers):
        stems(ax, outliers, single, floor, color=color, converged=converged)
    ax.set_yscale("log")
    ax.set_ylim(floor, max(ax.get_ylim()[1] if ax.lines else 0, 4 * density.mean(axis=0).max()))
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
) -> None:
    """Outliers as stems with circles over a logarithmic axis; open circles have not converged."""
    done = np.ones(len(positions), dtype=bool) if converged is None else np.asarray(converged, dtype=bool)
    ax.vlines(positions, floor, height, color=color, linewidth=0.8, zorder=3)
    for which, face in ((done, color), (~done, "white")):
        if which.any():
            ax.plot(
                positions[which],
                np.full(which.sum(), height),
                "o",
                markersize=3,
                zorder=4,
                markerfacecolor=face,
                markeredgecolor=color,
                markeredgewidth=0.7,
                label=label,
                clip_on=False,
            )
            label = None


def log_grid(nodes: Sequence[np.ndarray], *, epsilon: float, margin: float = 0.05, points: int = 1024) -> np.ndarray:
    """ln λ from ln ε to ln(max|θ| + ε) with a margin (paper, C.7); one grid for all spectra of a panel. -> [K]"""
    low, high = np.log(epsilon), np.log(max(np.abs(n).max() for n in nodes) + epsilon)
    spare = margin * (high - low)
    return np.linspace(low - spare, high + spare, points)


def log_spectrum_panel(
    ax: Axes,
    nodes: np.ndarray,
    weights: np.ndarray,
    dim: int,
    *,
    grid: np.ndarray,
    color: str,
    epsilon: float,
    kappa: float,
    per: str = "unit λ",
    label: str | None = None,
    fill: bool = True,
    band: bool = False,
    linestyle: str = "-",
) -> np.ndarray:  # nodes, weights [probes, M], grid [K] of ln λ -> the density drawn [K]
    """Density of ln(|λ| + ε) on log-log axes, `per` "unit λ" (divided by λ, as in the paper) or "unit ln λ" (C.7).

    The lowest density shown is a tenth of what one eigenvalue of `dim` = P alone would have.
    """
    if per not in ("unit λ", "unit ln λ"):
        raise ValueError(f"per is {per!r}; a log spectrum is drawn per 'unit λ' or per 'unit ln λ'")
    width = kernel_width(nodes.shape[1], kappa) * (grid[-1] - grid[0]) / 2
    density = broaden(np.log(np.abs(nodes) + epsilon), weights, grid, width)  # [probes, K]
    single = 1 / (dim * width * np.sqrt(2 * np.pi))
    scale = np.exp(-grid) if per == "unit λ" else np.ones_like(grid)
    floor = 0.1 * single * scale
    _filled(
        ax, np.exp(grid), density * scale, floor, color=color, label=label, band=band, fill=fill, linestyle=linestyle
    )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(np.exp(grid[0]), np.exp(grid[-1]))
    ax.set_xlabel("eigenvalue |λ| + ε")
    ax.set_ylabel(f"density per {per}")
    return np.asarray((density * scale).mean(axis=0))


def _filled(
    ax: Axes,
    x: np.ndarray,
    density: np.ndarray,
    floor: np.ndarray | float,
    *,
    color: str,
    label: str | None,
    band: bool,
    fill: bool = True,
    linestyle: str = "-",
) -> None:  # x [K], density [probes, K]; what lies under the floor is not drawn
    mean = density.mean(axis=0)
    shown = np.where(mean > floor, mean, np.nan)
    ax.plot(x, shown, color=color, label=label, linestyle=linestyle, zorder=2)
    if fill:
        ax.fill_between(x, floor, np.maximum(mean, floor), color=color, alpha=0.3, linewidth=0, zorder=1)
    if band and len(density) > 1:
        ax.fill_between(
            x,
            np.maximum(density.min(axis=0), floor),
            np.maximum(density.max(axis=0), floor),
            color=color,
            alpha=0.25,
            linewidth=0,
            zorder=1.5,
        )


def scree_panel(
    ax: Axes,
    eigenvalues: np.ndarray,
    *,
    color: str,
    label: str | None = None,
    converged: np.ndarray | None = None,
    marker: str = "o",
) -> None:  # [k]
    """Eigenvalues by rank, largest first, on a logarithmic axis (those ≤ 0 cannot be shown and are left out)."""
    order = np.argsort(eigenvalues)[::-1]
    ranks, values = np.arange(1, len(order) + 1), np.asarray(eigenvalues)[order]
    done = np.ones(len(values), dtype=bool) if converged is None else np.asarray(converged, dtype=bool)[order]
    shown = values > 0
    ax.plot(ranks[shown], values[shown], color=color, linewidth=0.6, zorder=2)
    for which, face in ((shown & done, color), (shown & ~done, "white")):
        if which.any():
            ax.plot(
                ranks[which],
                values[which],
                marker,
                markersize=3,
                markerfacecolor=face,
                markeredgecolor=color,
                markeredgewidth=0.7,
                label=label,
                zorder=3,
            )
            label = None
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.set_xlabel("rank")
    ax.set_ylabel("eigenvalue λ")


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
