"""Eigenvalues of a large dense symmetric matrix, and vectors in coordinates of its eigenvectors."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from scipy.linalg import lapack
from torch import Tensor

from repro.linalg.dense import eigh


def eigen_coordinates(A: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:  # [n, n], [n, K] -> [n], [n, K]
    """Eigenvalues of A in decreasing order and Yᵀ X, Y its eigenvectors in that order; A is overwritten. In float64.

    On a CPU Y is never formed: A = Q T Qᵀ with T tridiagonal, and Yᵀ X = Zᵀ (Qᵀ X) with Z the eigenvectors of T. That
    takes two thirds of the time of LAPACK's eigenvectors of A. Memory: 2 n² numbers besides A.
    """
    if A.device.type != "cpu" or len(A) < 3:
        values, Y = eigh(A)
        return values.flip(0), (Y.T @ X).flip(0)
    diagonal, off_diagonal, turned = _tridiagonal(A.numpy().T, X.numpy())  # Aᵀ = A is in LAPACK's memory order
    try:
        values, Z = scipy.linalg.eigh_tridiagonal(diagonal, off_diagonal, lapack_driver="stevd")
    except scipy.linalg.LinAlgError:  # divide and conquer fails on a rare matrix; the QR iteration is slow but sure
        values, Z = scipy.linalg.eigh_tridiagonal(diagonal, off_diagonal, lapack_driver="stev")
    return torch.from_numpy(values).flip(0), torch.from_numpy(Z.T @ turned).flip(0)


def _tridiagonal(A: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Diagonal and subdiagonal of T and Qᵀ X, for A = Q T Qᵀ by Householder reflections."""
    room, _ = lapack.dsytrd_lwork(len(A), lower=1)
    reflectors, diagonal, off_diagonal, tau, info = lapack.dsytrd(A, lower=1, lwork=int(room), overwrite_a=1)
    if info != 0:
        raise scipy.linalg.LinAlgError(f"LAPACK's dsytrd fails with info = {info}")
    turned = X.copy(order="F")  # Q leaves the first coordinate alone
    turned[1:], _, info = lapack.dormqr("L", "T", reflectors[1:, :-1], tau, X[1:], lwork=64 * max(1, X.shape[1]))
    if info != 0:
        raise scipy.linalg.LinAlgError(f"LAPACK's dormqr fails with info = {info}")
    return diagonal, off_diagonal, turned
