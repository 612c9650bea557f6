"""Spectra of low-rank sums of outer products from their Gram matrix (Papyan 2020, Sections 6 and 7)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def gram_matrix(slices: Iterable[Tensor]) -> Tensor:  # slices [K, P_s] -> [K, K]
    """<v_a, v_b> of K vectors that come in slices of their coordinates, added up in float64.

    The K x P matrix of vectors need never exist: a slice is a range of parameters, or one layer.
    """
    total: Tensor | None = None
    for block in slices:
        part = block.double() @ block.double().T
        total = part if total is None else total.add_(part)
    if total is None:
        raise ValueError("no slices: the Gram matrix of no coordinates is not defined")
    return total


def gram_spectrum(gram: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:  # [K, K], [K] -> [K], [K, K]
    """Eigenvalues, descending, of sum_a w_a v_a v_a^T from the Gram matrix of the v_a, and its eigenvectors.

    Column j of the second result combines the v_a into the j-th eigenvector, of unit length; it is zero where the
    eigenvalue is zero to rounding, i.e. beyond the rank. Only the K possibly non-zero eigenvalues are returned.

    Raises:
        ValueError: a weight is negative.
    """
    if bool((weights < 0).any()):
        raise ValueError("weights of a sum of outer products must not be negative")
    root = weights.double().sqrt()
    values, Y = torch.linalg.eigh(root[:, None] * gram * root)
    values, Y = values.flip(0), Y.flip(1)
    # With V the rows v_a: (sqrt(w) V)^T y has squared length lambda.
    present = values > 1e-12 * values[0].clamp(min=0)
    scale = torch.where(present, values.clamp(min=torch.finfo(values.dtype).tiny).rsqrt(), torch.zeros_like(values))
    return values, root[:, None] * Y * scale
