"""The numbers that decide the paper's claims, each from the arrays of one stored measurement (numpy only)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from repro.linalg.broadening import split_outliers

Arrays = Mapping[str, np.ndarray]


def outlier_to_bulk(arrays: Arrays, name: str) -> float:
    """The (C−1)-th largest eigenvalue over the largest node of the rest of the spectrum (by magnitude)."""
    positive = np.sort(arrays[f"{name}_eigenvalues"])[::-1]
    outliers = len(positive) - 1
    nodes, weights = split_outliers(arrays[f"{name}_nodes"], arrays[f"{name}_weights"], arrays[f"{name}_converged"])
    rest = np.append(np.abs(nodes[weights > 0]), np.abs(positive[outliers:]))
    return float(positive[outliers - 1] / rest.max())


def outlier_difference(arrays: Arrays) -> float:
    """Median of |λ_k(Hess) − λ_k(G)| / λ_k(Hess) over the top C−1 eigenvalues on training data."""
    hessian = np.sort(arrays["train_hessian_eigenvalues"])[::-1][:-1]
    gauss_newton = np.sort(arrays["train_gauss_newton_eigenvalues"])[::-1][: len(hessian)]
    return float(np.median(np.abs(hessian - gauss_newton) / np.abs(hessian)))


def residual_share_of_bulk(arrays: Arrays) -> float:
    """tr E² over tr E² + tr G², each without the leading eigenpairs that converged, on training data."""
    energy = {name: bulk_energy(arrays, f"train_{name}") for name in ("residual", "gauss_newton")}
    return energy["residual"] / (energy["residual"] + energy["gauss_newton"])


def bulk_energy(arrays: Arrays, name: str) -> float:
    """Sum of the squared eigenvalues without the leading ones, over P."""
    nodes, weights = split_outliers(arrays[f"{name}_nodes"], arrays[f"{name}_weights"], arrays[f"{name}_converged"])
    return float((nodes**2 * weights).sum() / len(nodes))
