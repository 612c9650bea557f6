"""Kronecker products: eigenvalues, means as operators (Papyan 2020, Section 7).

Convention: A (x) B acts on the row-major flattening of V [m, n] as V -> A V B, as `torch.kron` does. A weight
W [out, in] flattened by torch therefore takes (errors, features) in this order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repro.linalg.operator import LinearOperator


def kronecker_eigenvalues(A: Tensor, B: Tensor) -> Tensor:  # [m, m], [n, n] -> [m n]
    """Eigenvalues of A (x) B, descending: all products of one of A and one of B; A and B symmetric."""
    products = torch.outer(torch.linalg.eigvalsh(A), torch.linalg.eigvalsh(B))
    return products.flatten().sort(descending=True).values


class KroneckerMean(LinearOperator):
    """Ave_c A_c (x) B_c, applied without forming it; a sum of Kronecker products has no closed-form spectrum."""

    def __init__(self, A: Tensor, B: Tensor):  # [C, m, m], [C, n, n], all symmetric
        super().__init__(torch.empty(A.shape[1] * B.shape[1], dtype=A.dtype, device=A.device))
        self.A, self.B = A, B

    def matmat(self, V: Tensor) -> Tensor:  # [m n, K] -> [m n, K]
        m, n = self.A.shape[1], self.B.shape[1]
        X = V.T.reshape(-1, m, n)  # [K, m, n]
        total = torch.zeros_like(X)
        for A, B in zip(self.A, self.B, strict=True):
            total += A @ X @ B
        return total.reshape(-1, m * n).T / len(self.A)
