"""Kronecker products: eigenvalues, means as operators (Papyan 2020, Section 7).

Convention: A (x) B acts on the row-major flattening of V [m, n] as V -> A V B, as `torch.kron` does. A weight
W [out, in] flattened by torch therefore takes (errors, features) in this order.
"""

from __future__ import annotations

import torch
from scipy.linalg.lapack import get_lapack_funcs
from torch import Tensor

from repro.linalg.operator import LinearOperator


def kronecker_eigenvalues(A: Tensor, B: Tensor) -> Tensor:  # [m, m], [n, n] -> [m n]
    """Eigenvalues of A (x) B, descending: all products of one of A and one of B; A and B symmetric."""
    products = torch.outer(torch.linalg.eigvalsh(A), torch.linalg.eigvalsh(B))
    return products.flatten().sort(descending=True).values


class KroneckerMean(LinearOperator):
    """Ave_c A_c (x) B_c, applied without forming it; a sum of Kronecker products has no closed-form spectrum.

    Second moments of few vectors are applied by their square roots, which are thin: a layer of 2048 x 2048 weights and
    ten examples of each class takes a twentieth of the time.
    """

    def __init__(self, A: Tensor, B: Tensor, dtype: torch.dtype | None = None):  # [C, m, m], [C, n, n]
        """The mean over c; all A_c and B_c are symmetric.

        Args:
            dtype: In which it is applied; by default that of A and B, in which the square roots are found in any case.
        """
        self.m, self.n = A.shape[1], B.shape[1]
        super().__init__(torch.empty(1, dtype=dtype or A.dtype, device=A.device).expand(self.m * self.n))
        self.factors = [[[F.to(self.dtype) for F in factored(S)] for S in pair] for pair in zip(A, B, strict=True)]

    def matmat(self, V: Tensor) -> Tensor:  # [m n, K] -> [m n, K]
        total = torch.zeros_like(V)
        for X, out in zip(V.T, total.T):
            for A, B in self.factors:
                out += torch.linalg.multi_dot([*A, X.reshape(self.m, self.n), *B]).flatten()
        return total / len(self.factors)


def factored(S: Tensor) -> tuple[Tensor, ...]:  # [n, n] -> [n, n], or [n, r] and [r, n]
    """A symmetric S as matrices whose product it is: R and R^T where it has a root R of rank r < n / 2, or else S.

    By Cholesky with pivoting, which ends at the rank of a positive semidefinite matrix, and early for any other.
    """
    values = S.cpu().numpy()
    L, pivots, rank, _ = get_lapack_funcs("pstrf", [values])(values, lower=True)
    if 2 * rank >= len(S):
        return (S,)
    R = torch.zeros(len(S), rank, dtype=S.dtype)
    R[torch.from_numpy(pivots - 1).long()] = torch.from_numpy(L[:, :rank]).tril()
    R = R.to(S.device)
    is_root = (R @ R.T - S).abs().max() <= len(S) * torch.finfo(S.dtype).eps * S.abs().max()
    return (R, R.T) if is_root else (S,)
