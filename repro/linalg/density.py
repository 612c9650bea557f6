"""Spectral densities as the paper computes them (Papyan 2020, Appendix C, Algorithms 3 and 4; F18).

The defaults are the paper's: margin 0.05, K = 1024 grid points, kappa = 3, one probe, M = 128 steps (2048 for the log
spectrum), M0 = 64 for the normalisation, T = 128 subspace iterations. What one would use today is
`repro.linalg.spectrum.spectrum`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from repro.linalg.eigenpairs import Eigenpairs
from repro.linalg.lanczos import fast_lanczos, negligible
from repro.linalg.operator import LinearOperator, deflated
from repro.linalg.probe import random_unit_vector
from repro.linalg.subspace import subspace_iteration
from repro.spectra.broadening import EPSILON, KAPPA, LOG_KAPPA, MARGIN, POINTS, Curve, linear_curve, log_curve


class Density(NamedTuple):
    """A smoothed spectral density, and the quadrature it comes from."""

    curve: Curve  # density per unit eigenvalue, or per unit ln eigenvalue where asked for
    nodes: np.ndarray  # [probes, M] float64
    weights: np.ndarray  # [probes, M] float64, each row sums to one; zero where a run ended early


def padded(rows: list[torch.Tensor], length: int) -> np.ndarray:  # -> [rows, length]
    """Rows as one float64 array, filled with zeros where a run ended early."""
    table = np.zeros((len(rows), length))
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row.double().cpu().numpy()
    return table


def quadrature(A: LinearOperator, steps: int, probes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights [probes, M] of FastLanczos from `probes` random vectors (probes x steps products)."""
    generator = torch.Generator().manual_seed(seed)
    runs = [fast_lanczos(A, steps, start=random_unit_vector(A, generator)) for _ in range(probes)]
    return padded([run.values for run in runs], steps), padded([run.weights for run in runs], steps)


def normalization(A: LinearOperator, *, steps: int = 64, margin: float = MARGIN, seed: int = 0) -> tuple[float, float]:
    """Normalization (Algorithm 4): c and d such that the spectrum of (A - c I) / d lies in [-1, 1].

    The extreme Ritz values of FastLanczos with their residuals bound the spectrum; `margin` widens it on both sides.
    Where they are one value (a multiple of the identity) it is a share of its size, or of one where that is zero.
    """
    ritz = fast_lanczos(A, steps, seed=seed)
    low, high = float(ritz.values[0] - ritz.residuals[0]), float(ritz.values[-1] + ritz.residuals[-1])
    size, length = max(abs(low), abs(high)), high - low
    room = margin * (length if length > negligible(A.dtype, size) else size or 1.0)
    return (high + low) / 2, (high - low) / 2 + room


def lanczos_approx_spec(
    A: LinearOperator,
    *,
    steps: int = 128,
    points: int = POINTS,
    probes: int = 1,
    kappa: float = KAPPA,
    margin: float = MARGIN,
    normalization_steps: int = 64,
    seed: int = 0,
) -> Density:
    """LanczosApproxSpec (Algorithm 3): the density per unit eigenvalue; it integrates to one.

    The Gaussian width is 2 / ((M - 1) sqrt(8 ln kappa)) on the normalised range [-1, 1]. Lanczos commutes with
    (A - c I) / d, so it is run on A itself and only the grid and the width are scaled.
    """
    center, half_range = normalization(A, steps=normalization_steps, margin=margin, seed=seed)
    nodes, weights = quadrature(A, steps, probes, seed + 1)
    limits = (center - half_range, center + half_range)
    return Density(linear_curve(nodes, weights, kappa=kappa, points=points, limits=limits), nodes, weights)


def log_spectrum(
    A: LinearOperator,
    *,
    steps: int = 2048,
    points: int = POINTS,
    probes: int = 1,
    kappa: float = LOG_KAPPA,
    epsilon: float = EPSILON,
    margin: float = MARGIN,
    per_log: bool = False,
    seed: int = 0,
) -> Density:
    """The log spectrum (Appendix C.7): Lanczos on A, smoothing on the axis ln(|eigenvalue| + epsilon).

    Density per unit eigenvalue, as the paper draws it, or with `per_log` per unit ln eigenvalue. The paper does not
    state kappa for it; 1.25 is that of the author's released code.
    """
    nodes, weights = quadrature(A, steps, probes, seed)
    curve = log_curve(nodes, weights, epsilon=epsilon, kappa=kappa, points=points, margin=margin, per_log=per_log)
    return Density(curve, nodes, weights)


def low_rank_deflation(
    A: LinearOperator, k: int, *, iterations: int = 128, seed: int = 0, **approx_spec: int | float
) -> tuple[Eigenpairs, Density]:
    """LowRankDeflation: the top k by subspace iteration, then the density of A - Q Lambda Q^T by Algorithm 3.

    The density is normalised on the deflated operator and integrates to one; its k zeros stand for the outliers, each
    of which has mass 1/P. `approx_spec`: arguments of `lanczos_approx_spec`. iterations x k + M0 + M products.
    """
    outliers = subspace_iteration(A, k, iterations=iterations, seed=seed)
    rest = deflated(A, outliers.eigenvalues, outliers.vectors)
    return outliers, lanczos_approx_spec(rest, seed=seed, **approx_spec)  # type: ignore[arg-type]
