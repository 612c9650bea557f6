"""Quadrature nodes and weights of spectra -> curves to draw and distances between spectra (numpy and scipy).

Nodes and weights come as [probes, M], each row's weights summing to one: a row is one estimate of the spectral measure.
Width and ranges follow Papyan (2020), Appendix C and D.2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# What the smoothing of spectra depends on beside the number of Lanczos steps. Figures use these and no others.
KAPPA = 3.0  # of a linear spectrum: the paper, D.2 (certain); the author's released code has 1.25
LOG_KAPPA = 1.25  # of a log spectrum: the paper states none (certain); the value of the author's released code
EPSILON = 1e-5  # of a log spectrum: the paper (certain); the author's released code has 1e-6
MARGIN = 0.05  # by which a range is widened on both sides: the paper (certain)
POINTS = 1024  # K, points of the grid: the paper (certain), but for the 200 of Figure 15


class Curve(NamedTuple):
    """A density on a grid: the mean over probes, and mean -/+ one standard error of it (no band from one probe)."""

    x: Array  # [points]  eigenvalues
    density: Array  # [points]
    low: Array  # [points]  not below zero
    high: Array  # [points]


def gaussian_width(steps: int, kappa: float) -> float:
    """Standard deviation 2 / ((M - 1) sqrt(8 ln kappa)) of the smoothing, on the range [-1, 1] (Algorithm 3).

    One step, for which it is not defined, has the width of two: a run may be stopped there, or all else be taken out.
    """
    return 2 / ((max(steps, 2) - 1) * np.sqrt(8 * np.log(kappa)))


def broaden(nodes: ArrayLike, weights: ArrayLike, grid: ArrayLike, width: float) -> Array:  # [R, M] -> [R, points]
    """Each row's measure smoothed by a Gaussian of standard deviation `width`, per unit of the grid."""
    nodes, weights, grid = np.atleast_2d(nodes), np.atleast_2d(weights), np.asarray(grid, dtype=float)
    curves = np.zeros((len(nodes), len(grid)))
    for curve, row, mass in zip(curves, nodes, weights, strict=True):
        curve += np.exp(-0.5 * ((grid[:, None] - row) / width) ** 2) @ mass / (width * np.sqrt(2 * np.pi))
    return curves


def linear_curve(
    nodes: ArrayLike,
    weights: ArrayLike,
    *,
    kappa: float = KAPPA,
    points: int = POINTS,
    margin: float = MARGIN,
    limits: tuple[float, float] | None = None,
) -> Curve:  # [R, M]
    """Density per unit eigenvalue on a linear grid over `limits`, by default the range of the nodes with a margin."""
    nodes, weights = np.atleast_2d(nodes), np.atleast_2d(weights)
    low, high = limits or _range(nodes[weights > 0], margin)
    grid = np.linspace(low, high, points)
    return _curve(grid, broaden(nodes, weights, grid, _width(nodes.shape[1], kappa, low, high, points)))


def log_curve(
    nodes: ArrayLike,
    weights: ArrayLike,
    *,
    epsilon: float = EPSILON,
    kappa: float = LOG_KAPPA,
    points: int = POINTS,
    margin: float = MARGIN,
    limits: tuple[float, float] | None = None,
    per_log: bool = False,
) -> Curve:  # [R, M]
    """Density of |eigenvalue| smoothed on the axis ln(|eigenvalue| + epsilon) (the log spectrum, Appendix C.7).

    The grid x = |eigenvalue| + epsilon is log-spaced over `limits`, by default epsilon to the largest with a margin.
    Per unit eigenvalue (as drawn in the paper), or with `per_log` per unit ln eigenvalue.
    """
    nodes, weights = np.atleast_2d(nodes), np.atleast_2d(weights)
    logs = np.log(np.abs(nodes) + epsilon)
    if limits:
        low, high = np.log(limits[0]), np.log(limits[1])
    else:
        low, high = _range(np.append(logs[weights > 0], np.log(epsilon)), margin)
    grid = np.linspace(low, high, points)
    curves = broaden(logs, weights, grid, _width(nodes.shape[1], kappa, low, high, points))
    x = np.exp(grid)
    return _curve(x, curves if per_log else curves / x)


def wasserstein(
    nodes: ArrayLike,
    weights: ArrayLike,
    other_nodes: ArrayLike,
    other_weights: ArrayLike | None = None,
    *,
    epsilon: float | None = None,
) -> float:
    """Wasserstein-1 distance between two spectra, the integral of |F - F'|; rows of probes count as their average.

    Without weights the second spectrum is a plain list of eigenvalues. With `epsilon` the distance is taken on the axis
    ln(|eigenvalue| + epsilon), so it is a mean factor rather than a mean difference.
    """
    from scipy.stats import wasserstein_distance

    others = np.ones_like(np.asarray(other_nodes)) if other_weights is None else other_weights
    a, b = _axis(nodes, epsilon), _axis(other_nodes, epsilon)
    return float(wasserstein_distance(a, b, np.ravel(weights), np.ravel(others)))


def moved(nodes: Array, weights: Array, other_nodes: Array, other_weights: Array, *, steps: int = 64) -> float:
    """Which share of one density must be moved to make it the other, both smoothed as those of `steps` steps are.

    Half the integral of |density - other|, over the range of the second; 0 if they are the same, 1 if they are apart.
    Each counts with mass one. The width is that of a fixed number of steps, so that the share falls as estimates of one
    density come closer, where curves of ever more steps are ever less smooth.
    """
    low, high = _range(other_nodes, MARGIN)
    grid = np.linspace(low, high, POINTS)
    width = _width(steps, KAPPA, low, high, POINTS)
    one, other = (broaden(x, w / w.sum(), grid, width)[0] for x, w in ((nodes, weights), (other_nodes, other_weights)))
    return float(np.abs(one - other).sum() * (grid[1] - grid[0]) / 2)


def _axis(nodes: ArrayLike, epsilon: float | None) -> Array:
    x = np.asarray(nodes, dtype=float).ravel()
    return x if epsilon is None else np.log(np.abs(x) + epsilon)


def _range(values: Array, margin: float) -> tuple[float, float]:
    """The range of the values, widened on both sides; a single value gets one of its own size, none that of zero."""
    values = values if values.size else np.zeros(1)
    low, high = float(values.min()), float(values.max())
    room = margin * ((high - low) or abs(high) or 1.0)
    return low - room, high + room


def _width(steps: int, kappa: float, low: float, high: float, points: int) -> float:
    """The paper's width on [low, high]; never below half a grid step, or the curve would lose mass between points."""
    relative = gaussian_width(steps, kappa)
    return max(relative, 1 / (points - 1)) * (high - low) / 2


def _curve(x: Array, curves: Array) -> Curve:  # [points], [R, points]
    mean = curves.mean(axis=0)
    error = curves.std(axis=0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else np.zeros_like(mean)
    return Curve(x, mean, np.maximum(mean - error, 0), mean + error)
