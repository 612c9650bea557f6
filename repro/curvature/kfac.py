"""Kronecker-factored approximations of one layer's G^l: KFAC, CFAC and EKFAC (Papyan 2020, Definitions 7.1 and 7.2).

    KFAC    T Delta ⊗ H                  H = Ave_i h h^T, Delta = Ave_i Σ_{c'} p_{i,c'} delta delta^T
    CFAC    T Ave_c Delta_c ⊗ H_c        the same averages over the examples of each class
    EKFAC   U diag(s) U^T                U the eigenvectors of KFAC, s the exact second moments of g along them
                                         (George et al. 2018; not in the paper)

in the sense of torch.kron on the row-major flattening of [W b] (`repro.curvature.layers`); the paper writes H ⊗ Delta
for the column-major one. Averages run over samples as `repro.curvature.moments` defines them, and T is the number of
samples an example has: 1 for a linear layer; for a convolution the number of positions under "expand" (KFC, Grosse &
Martens 2016, positions taken for independent), and 1 under "reduce" (g taken for Σ_t delta_t ⊗ Ave_t h_t).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from repro.curvature.layers import LayerSamples
from repro.curvature.moments import Sharing, check_not_zero, error_samples, feature_samples
from repro.linalg.dense import eigh
from repro.linalg.kronecker import KroneckerMean, kronecker_eigenvalues
from repro.linalg.operator import LinearOperator


class KroneckerFactors(NamedTuple):
    """Second moments of one layer's features and errors by class, in float64."""

    H: Tensor  # [C, D, D]  H_c = Ave_i h h^T over class c
    Delta: Tensor  # [C, O, O]  Delta_c = Ave_i Σ_{c'} p_{i,c,c'} delta delta^T
    shares: Tensor  # [C]  n_c / N
    positions: int  # T, samples an example

    def average(self) -> tuple[Tensor, Tensor]:  # [O, O], [D, D]
        """Delta and H over all examples, whatever their class: KFAC without its factor T."""
        return torch.tensordot(self.shares, self.Delta, 1), torch.tensordot(self.shares, self.H, 1)


def kronecker_factors(samples: Iterable[LayerSamples], *, sharing: Sharing) -> KroneckerFactors:
    """Stream the factors of one layer. Memory: C (D² + O²) numbers and one batch."""
    counts = H = Delta = None
    positions = 0
    for batch in samples:
        h, delta = feature_samples(batch.h, sharing).double(), error_samples(batch.delta, sharing).double()
        p, positions = batch.p.double(), h.shape[1]
        if counts is None or H is None or Delta is None:
            C, D, O = p.shape[1], h.shape[-1], delta.shape[-1]
            counts, H, Delta = p.new_zeros(C), p.new_zeros(C, D, D), p.new_zeros(C, O, O)
        for c in batch.y.unique().tolist():
            of_class = batch.y == c
            counts[c] += of_class.sum()
            rows, errors = h[of_class].flatten(0, 1), delta[of_class]
            H[c] += rows.T @ rows / positions
            weighted = p[of_class][:, :, None, None] * errors
            Delta[c] += weighted.flatten(0, 2).T @ errors.flatten(0, 2) / positions
    if counts is None or H is None or Delta is None:
        raise ValueError("no data: Kronecker factors need at least one batch of examples")
    check_not_zero(Delta, "the errors of the layer")
    n = counts.clamp(min=1)[:, None, None]  # a class without examples has share zero
    return KroneckerFactors(H / n, Delta / n, counts / counts.sum(), positions)


def kfac_eigenvalues(factors: KroneckerFactors) -> Tensor:  # -> [O D]
    """All eigenvalues of KFAC, descending."""
    Delta, H = factors.average()
    return kronecker_eigenvalues(factors.positions * Delta, H)


def cfac(factors: KroneckerFactors, dtype: torch.dtype | None = None) -> LinearOperator:
    """T Σ_c (n_c/N) Delta_c ⊗ H_c: V -> T Ave_c Delta_c V H_c for balanced classes.

    Args:
        dtype: In which it is applied, by default float64; on a CPU a product in float32 takes half of the time.
    """
    weights = factors.positions * len(factors.shares) * factors.shares
    return KroneckerMean(weights[:, None, None] * factors.Delta, factors.H, dtype)


def ekfac_eigenvalues(samples: Iterable[LayerSamples], factors: KroneckerFactors) -> Tensor:  # -> [O D]
    """Eigenvalues of EKFAC, descending: s_{jk} = Σ w (u_j^T g v_k)², u and v the eigenvectors of Delta and H.

    They are the diagonal of the exact G^l in KFAC's eigenbasis, so their sum is the trace of G^l. For a convolution g
    is the exact Σ_t delta_t h_t^T. Memory for one would-be label of a batch: B O D numbers if T > 1.
    """
    Delta, H = factors.average()
    U, V = eigh(Delta)[1], eigh(H)[1]
    total, examples = Delta.new_zeros(len(U), len(V)), 0
    for batch in samples:
        examples += len(batch.h)
        h, p = batch.h.double() @ V, batch.p.double()
        for k in range(p.shape[1]):
            errors = batch.delta[:, k].double() @ U  # [B, T, O]
            if h.shape[1] == 1:
                total += (p[:, k, None] * errors[:, 0] ** 2).T @ h[:, 0] ** 2
            else:
                total += torch.einsum("b,bod->od", p[:, k], (errors.transpose(1, 2) @ h) ** 2)
    return (total / examples).flatten().sort(descending=True).values


class Diagonal(LinearOperator):
    """A matrix of known eigenvalues in its own eigenbasis, to be seen through the same Lanczos runs as others."""

    def __init__(self, eigenvalues: Tensor):  # [P]
        super().__init__(eigenvalues)
        self.eigenvalues = eigenvalues

    def matmat(self, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        return self.eigenvalues[:, None] * V


def class_mean_cosines(samples: Iterable[LayerSamples]) -> Tensor:  # -> [C]
    """Cosine of g_c with delta_c ⊗ h_c: how far the layer's class mean is the product of its factors' class means.

    g_c and delta_c are the weighted means over c' ≠ c of Section 6, h_c the plain mean. Positions of a convolution are
    summed in g, and averaged in the means. NaN for a class without examples.
    """
    g: Tensor | None = None
    for batch in samples:
        h, C = batch.h.double(), batch.p.shape[1]
        if g is None:
            O, D = batch.delta.shape[-1], h.shape[-1]
            g, errors, features = h.new_zeros(C, O, D), h.new_zeros(C, O), h.new_zeros(C, D)
        for c in batch.y.unique().tolist():
            of_class = batch.y == c
            w = batch.p[of_class].double()
            w[:, c] = 0
            summed = torch.einsum("bc,bcto->bto", w, batch.delta[of_class].double())
            g[c] += torch.einsum("bto,btd->od", summed, h[of_class])
            errors[c] += summed.sum(dim=(0, 1))
            features[c] += h[of_class].sum(dim=(0, 1))
    if g is None:
        raise ValueError("no data: class means need at least one batch of examples")
    check_not_zero(errors, "the errors of the layer")
    inner = torch.einsum("co,cod,cd->c", errors, g, features)
    return inner / (g.flatten(1).norm(dim=1) * errors.norm(dim=1) * features.norm(dim=1))
