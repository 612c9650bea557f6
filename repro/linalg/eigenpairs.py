"""Extreme eigenpairs to a tolerance: Lanczos with full reorthogonalisation and thick restart (Wu & Simon 2000)."""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from repro.linalg.lanczos import basis_device, negligible, orthogonalise
from repro.linalg.operator import LinearOperator
from repro.linalg.probe import check_pair, inner, norm, random_unit_vector

log = logging.getLogger(__name__)

Order = Literal["magnitude", "largest"]


class Eigenpairs(NamedTuple):
    """Approximate eigenpairs of A in decreasing order, each with its sign and its residual."""

    eigenvalues: Tensor  # [K]
    vectors: Tensor  # [P, K]  orthonormal
    residuals: Tensor  # [K]     |A q - lambda q|, absolute
    converged: Tensor  # [K]     bool: residual <= tolerance |lambda|
    products: int  # matrix-vector products spent


def leading(values: Tensor, k: int, by: Order) -> Tensor:  # [M] -> [min(k, M)]
    """Indices of the k leading values: by absolute value, or the algebraically largest."""
    return (values.abs() if by == "magnitude" else values).argsort(descending=True, stable=True)[:k]


def is_converged(values: Tensor, residuals: Tensor, tolerance: float, dtype: torch.dtype, scale: float) -> Tensor:
    """residual <= tolerance |lambda|, where `scale` is the norm of A; residuals at rounding level always pass.

    The second clause lets a zero eigenvalue of a low-rank matrix converge, whose relative residual means nothing.
    """
    return residuals <= (tolerance * values.abs()).clamp(min=negligible(dtype, scale))


def combine(Q: Tensor, Y: Tensor, out: Tensor, chunk: int = 1 << 18) -> None:  # [M, P], [M, K], out [K, P]
    """out = Y^T Q, chunk by chunk of coordinates so that `out` may be the first rows of Q."""
    Y = Y.to(dtype=Q.dtype, device=Q.device)
    for begin in range(0, Q.shape[1], chunk):
        out[:, begin : begin + chunk] = (Y.T @ Q[:, begin : begin + chunk]).to(out.device)


def top_eigenpairs(
    A: LinearOperator,
    k: int,
    *,
    tolerance: float,
    max_products: int,
    memory_budget: int,
    seed: int,
    by: Order = "magnitude",
) -> Eigenpairs:
    """The k leading eigenpairs of A, each to a relative residual |A q - lambda q| / |lambda| <= tolerance.

    Stops at the tolerance or at `max_products`; then `converged` says which pairs are good. The basis holds at most
    `memory_budget` bytes: where it outgrows them the best Ritz vectors are kept and the run goes on from them.

    A single starting vector sees one copy of an exactly repeated eigenvalue (networks have none generically). Only
    where the Krylov space is exhausted, as for a matrix of low rank, does the search go on from fresh random vectors
    until they find nothing new; then all copies are found.

    Raises:
        ValueError: k is not in 1..P, `max_products` < k, the budget holds fewer than k + 2 vectors, or A is not
            symmetric.
    """
    rows = _rows(A, k, max_products, memory_budget)
    search = _Search(A, rows, by, torch.Generator().manual_seed(seed), memory_budget)
    known = torch.zeros(0, dtype=torch.float64)  # the leading values when the Krylov space was last exhausted
    while True:
        search.step()
        values, Y, residuals = search.ritz(k)
        good = is_converged(values, residuals, tolerance, A.dtype, search.scale)
        if search.size == A.dim or search.products >= max_products:
            break
        if search.exhausted and search.size >= k:
            if len(known) == k and torch.allclose(
                known, values, rtol=tolerance, atol=negligible(A.dtype, search.scale)
            ):
                break
            known = values
        elif search.size >= k and len(known) == 0 and bool(good.all()):
            break
        search.advance(k)
    vectors = torch.empty(len(values), A.dim, dtype=A.dtype, device=A.device)
    combine(search.Q[: search.size], Y, vectors)
    if not good.all():
        log.warning("%d of %d eigenpairs not converged after %d products", int((~good).sum()), k, search.products)
    values, residuals = values.to(A.device, A.dtype), residuals.to(A.device, A.dtype)
    return Eigenpairs(values, vectors.T, residuals, good.to(A.device), search.products)


def _rows(A: LinearOperator, k: int, max_products: int, memory_budget: int) -> int:
    if not 1 <= k <= A.dim:
        raise ValueError(f"k = {k} eigenpairs of a {A.dim} x {A.dim} matrix: k must be in 1..{A.dim}")
    if max_products < k:
        raise ValueError(f"max_products = {max_products} is below the number of eigenpairs asked for, {k}")
    fitting = memory_budget // (A.dim * torch.finfo(A.dtype).bits // 8)
    rows = min(fitting, max_products, A.dim)
    if rows < min(k + 2, max_products, A.dim):
        raise ValueError(
            f"a memory budget of {memory_budget} bytes holds {fitting} vectors of length {A.dim}; {k} eigenpairs need "
            f"at least {k + 2}: raise the budget or ask for fewer pairs"
        )
    if rows < min(max_products, A.dim):
        log.info("the basis may hold %d of up to %d vectors: thick restarts if more are needed", rows, max_products)
    return rows


class _Search:
    """A growing orthonormal basis Q with T = Q A Q^T, whose last vector alone couples to what lies outside."""

    def __init__(self, A: LinearOperator, rows: int, by: Order, generator: torch.Generator, memory_budget: int):
        self.A, self.by, self.generator, self.products = A, by, generator, 0
        self.Q = torch.empty(rows, A.dim, dtype=A.dtype, device=basis_device(A, rows, memory_budget))
        self.T = torch.zeros(rows, rows, dtype=torch.float64)
        self.size, self.next, self.beta, self.scale = 0, random_unit_vector(A, generator), 0.0, 0.0
        self.coupling = torch.zeros(0, dtype=torch.float64)  # [size]  <q_i, A next>, known before the product
        self.exhausted = False

    def step(self) -> None:
        """One product: the next row of T, and the residual that is the next direction."""
        n, q = self.size, self.next
        self.Q[n] = q
        w = self.A @ q
        if self.products == 1:  # beta is <A q_0, q_1>
            back = inner(w, self.Q[0].to(w.device))
            check_pair(self.A, back, self.beta, norm(w) + self.scale + self.beta)
        alpha = inner(q, w)
        self.T[:n, n] = self.T[n, :n] = self.coupling
        self.T[n, n] = alpha
        self.scale = max(self.scale, float(self.T[: n + 1, n].norm()))
        first = int(self.coupling.nonzero()[0]) if self.coupling.any() else n
        near = slice(first, n)  # the last vector alone, or all of them after a restart: a view, as they fill the memory
        w = w - alpha * q - (self.Q[near].T @ self.coupling.to(self.Q)[near]).to(w.device)
        w = orthogonalise(w, self.Q[: n + 1])
        self.size, self.products, self.beta = n + 1, self.products + 1, norm(w)
        self.exhausted = self.beta <= negligible(self.A.dtype, self.scale)
        self.next = w / self.beta if self.beta > 0 else w
        self.coupling = torch.zeros(n + 1, dtype=torch.float64)
        self.coupling[n] = self.beta

    def ritz(self, k: int) -> tuple[Tensor, Tensor, Tensor]:  # values [K], Y [size, K], residuals [K]
        values, Y = torch.linalg.eigh(self.T[: self.size, : self.size])
        chosen = leading(values, k, self.by)
        return values[chosen], Y[:, chosen], self.beta * Y[-1, chosen].abs()

    def advance(self, k: int) -> None:
        """Make room if the basis is full, and choose the next direction."""
        rows = len(self.Q)
        if self.size == rows:
            keep = min(k + (rows - k) // 2, rows - 1)
            values, Y, _ = self.ritz(keep)
            combine(self.Q[: self.size], Y, self.Q[:keep])
            self.T.zero_()
            self.T[:keep, :keep] = values.diag()
            self.size, self.coupling = keep, self.beta * Y[-1]
            log.info("thick restart after %d products with %d Ritz vectors", self.products, keep)
        if self.exhausted:
            fresh = orthogonalise(random_unit_vector(self.A, self.generator), self.Q[: self.size])
            self.next, self.coupling = fresh / norm(fresh), torch.zeros(self.size, dtype=torch.float64)
