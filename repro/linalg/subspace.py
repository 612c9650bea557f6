"""Subspace iteration with Rayleigh quotients (Papyan 2020, Algorithm 5)."""

from __future__ import annotations

import torch

from repro.linalg.eigenpairs import Eigenpairs, is_converged, leading
from repro.linalg.operator import LinearOperator
from repro.linalg.probe import random_vectors


def subspace_iteration(
    A: LinearOperator, k: int, *, iterations: int = 128, tolerance: float = 1e-3, seed: int = 0
) -> Eigenpairs:
    """SubspaceIteration: V = A Q, Q = qr(V), `iterations` times; iterations x k products (the paper: 128 C).

    The last V also gives the k x k matrix Q^T A Q, whose eigenpairs are the eigenvalues returned (Rayleigh quotients:
    unlike |A q| they keep the sign of a negative outlier), their vectors and their residuals. `tolerance` decides
    `converged` alone: the number of iterations is fixed, as in the paper.
    """
    Q = random_vectors(A, k, torch.Generator().manual_seed(seed))
    for _ in range(iterations):
        Q = torch.linalg.qr(Q).Q
        V = A @ Q
        Q, previous = V, Q
    S = previous.T @ V
    values, Y = torch.linalg.eigh((S + S.T) / 2)
    order = leading(values, k, "magnitude")
    values, vectors = values[order], previous @ Y[:, order]
    residuals = (V @ Y[:, order] - vectors * values).norm(dim=0)
    converged = is_converged(values, residuals, tolerance, A.dtype, float(values.abs().max()))
    return Eigenpairs(values, vectors, residuals, converged, iterations * k)
