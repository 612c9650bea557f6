"""Trace, diagonal and Frobenius norm of a matrix known by its products, each with its standard error.

Of the products one half is a Lanczos run. With W its orthonormal rows, T its tridiagonal relation and Π the projection
onto the complement of the rows that it has multiplied,

    A = WᵀTW + ΠAΠ,

where the first term is known exactly. It holds the outliers, from which nearly all the variance of plain estimators
comes. The other half are products with random signs x, for which

    E xᵀ ΠAΠ x = tr ΠAΠ,    E x ∘ ΠAΠ x = diag ΠAΠ,    E ‖ΠAΠ x‖² = ‖ΠAΠ‖_F².

These means are unbiased and their samples independent, so their spread says how far off they are. The trace is that of
Hutch++ (Meyer et al. 2021) with a Krylov space in the place of its sketch (Chen and Hallman 2023): twice as many
directions for the same products, and nearer to the outliers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from repro.linalg.lanczos import basis_device, lanczos, negligible, orthogonalise
from repro.linalg.operator import LinearOperator
from repro.linalg.probe import inner, random_signs, random_unit_vector


class Estimate(NamedTuple):
    """An estimate and its standard error: in some 19 of 20 cases the truth lies within two of these.

    An error of zero says that the value is exact to rounding.
    """

    value: Tensor  # float64, or [P] in the precision of the matrix
    error: Tensor  # of the same shape

    def __repr__(self) -> str:
        if self.value.ndim:
            return f"{type(self).__name__}(value {list(self.value.shape)}, error {list(self.error.shape)})"
        return f"{self.value:.4g} ± {self.error:.2g}"


class Moments(NamedTuple):
    """What is estimated of one matrix from the same products."""

    trace: Estimate  # the sum of the eigenvalues
    diagonal: Estimate  # [P]
    frobenius_norm: Estimate  # the root of the sum of squared eigenvalues; its square is unbiased
    products: int  # matrix-vector products spent


def moments(A: LinearOperator, *, products: int = 40, memory_budget: int = 8 << 30, seed: int = 0) -> Moments:
    """Trace, diagonal and Frobenius norm of A.

    Entry i of the diagonal has the standard error √(Σ_{j≠i} M_ij² / n) with M = ΠAΠ and n random vectors: where the
    spectrum decays slowly single entries stay inaccurate for long, while their sum, the trace, is good.

    Args:
        products: matrix-vector products to spend, at least 4; errors fall as their inverse root, and faster while the
            first half of them still finds outliers.
        memory_budget: bytes that half as many vectors [P] may take. With fewer of them errors are larger.

    Raises:
        ValueError: fewer than 4 products, or an A that is not symmetric or not finite.

    >>> import torch
    >>> from repro.linalg.operator import Dense
    >>> A = Dense(torch.diag(torch.cat([torch.tensor([900.0, -700.0]), torch.linspace(-1, 1, 98)])))
    >>> found = moments(A)
    >>> round(float(found.trace.value)), round(float(found.frobenius_norm.value)), found.products
    (200, 1140, 40)
    """
    if not isinstance(products, int) or products < 4:
        raise ValueError(f"products is {products}: a whole number, at least 4, is needed")
    before, generator = A.products, torch.Generator().manual_seed(seed)
    fitting = memory_budget // (A.dim * torch.finfo(A.dtype).bits // 8)
    steps = max(2, min(products // 2, fitting))
    run = lanczos(A, random_unit_vector(A, generator), steps, basis_device=basis_device(A, steps, memory_budget))
    T, W, Q = run.matrix(), run.Q, run.Q
    if run.beta[-1] > negligible(A.dtype, float(T.abs().max())):  # what the last row couples to is not known
        T[-1, -1] = 0
        Q = W[:-1]
    trace, diagonal, squares = _Mean(), _Mean(), _Mean()
    for _ in range(products - (A.products - before)):
        x = random_signs(A, generator)
        y = orthogonalise(A @ orthogonalise(x, Q), Q)
        trace.add(torch.tensor(inner(x, y), dtype=torch.float64))
        diagonal.add(x * y)
        squares.add(torch.tensor(inner(y, y), dtype=torch.float64))
    norm = (T.square().sum() + squares.mean).sqrt()
    half = 1 / (2 * norm) if norm > 0 else norm  # the derivative of the root
    return Moments(
        Estimate(T.trace() + trace.mean, trace.error()),
        Estimate(_diagonal(T, W).to(diagonal.mean) + diagonal.mean, diagonal.error()),
        Estimate(norm, squares.error() * half),
        A.products - before,
    )


def complement_trace(A: LinearOperator, U: Tensor, probes: int, *, seed: int = 0) -> Estimate:  # U [P, K]
    """tr (I − UUᵀ) A (I − UUᵀ) for orthonormal columns U, such as eigenvectors, from `probes` products."""
    generator, Q, mean = torch.Generator().manual_seed(seed), U.T.contiguous(), _Mean()
    for _ in range(probes):
        x = orthogonalise(random_signs(A, generator), Q)
        mean.add(torch.tensor(inner(x, A @ x), dtype=torch.float64))
    return Estimate(mean.mean, mean.error())


class _Mean:
    """The mean of samples and its standard error, by Welford's update: no digits are lost where samples agree."""

    def __init__(self) -> None:
        self.count, self.mean, self.spread = 0, torch.zeros(()), torch.zeros(())

    def add(self, sample: Tensor) -> None:
        self.count += 1
        change = sample - self.mean
        self.mean = self.mean + change / self.count
        self.spread = self.spread + change * (sample - self.mean)

    def error(self) -> Tensor:
        return (self.spread / (self.count * (self.count - 1))).sqrt()


def _diagonal(T: Tensor, W: Tensor) -> Tensor:  # [M, M], [M, P] -> [P]
    """The diagonal of WᵀTW, row by row."""
    total = torch.zeros_like(W[0])
    for m, row in enumerate(W):
        total += float(T[m, m]) * row**2
        if m:
            total += 2 * float(T[m, m - 1]) * row * W[m - 1]
    return total
