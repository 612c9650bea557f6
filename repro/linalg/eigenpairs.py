"""Extreme eigenpairs to a tolerance: Lanczos with full reorthogonalisation and thick restart (Wu & Simon 2000)."""

from __future__ import annotations

import logging
import math
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from repro.linalg.lanczos import basis_device, negligible, orthogonalise
from repro.linalg.operator import LinearOperator, Stopped
from repro.linalg.outside import Order, look_outside, size
from repro.linalg.probe import check_pair, inner, norm, random_unit_vector

log = logging.getLogger(__name__)


class Eigenpairs(NamedTuple):
    """Approximate eigenpairs of A in decreasing order, each with its sign and its residual."""

    eigenvalues: Tensor  # [K]
    vectors: Tensor  # [P, K]  orthonormal
    residuals: Tensor  # [K]  |A q - lambda q|, absolute, rounding of the product included
    converged: Tensor  # [K]  bool: residual <= tolerance |lambda|, and no larger eigenvalue was seen outside
    products: int  # matrix-vector products spent


def leading(values: Tensor, k: int, by: Order) -> Tensor:  # [M] -> [min(k, M)]
    """Indices of the k leading values: by absolute value, or the algebraically largest."""
    return size(values, by).argsort(descending=True, stable=True)[:k]


def is_converged(values: Tensor, residuals: Tensor, tolerance: float, dtype: torch.dtype, scale: float) -> Tensor:
    """residual <= tolerance |lambda|, or both zero to rounding, where `scale` is the norm of A.

    The second clause lets a zero eigenvalue of a low-rank matrix converge, whose relative residual means nothing.
    """
    rounding = negligible(dtype, scale)
    zero = (values.abs() <= rounding) & (residuals <= rounding)
    return (residuals <= tolerance * values.abs()) | zero


def combine(Q: Tensor, Y: Tensor, out: Tensor, chunk: int = 1 << 18) -> None:  # [M, P], [M, K], out [K, P]
    """out = Y^T Q, chunk by chunk of coordinates so that `out` may be the first rows of Q."""
    Y = Y.to(dtype=Q.dtype, device=Q.device)
    for begin in range(0, Q.shape[1], chunk):
        out[:, begin : begin + chunk] = (Y.T @ Q[:, begin : begin + chunk]).to(out.device)


def top_eigenpairs(
    A: LinearOperator,
    k: int,
    *,
    tolerance: float = 1e-3,
    max_products: int = 1000,
    memory_budget: int = 8 << 30,
    seed: int = 0,
    by: Order = "magnitude",
) -> Eigenpairs:
    """The k leading eigenpairs of A, each to a relative residual |A q - lambda q| / |lambda| <= tolerance.

    The search stops at the tolerance or at `max_products`; then `converged` says which pairs are good. The basis holds
    at most `memory_budget` bytes: where it outgrows them the best Ritz vectors are kept and the run goes on from them.

    Then the pairs are confirmed, see `confirmed`: one product measures the rounding, and a run from a fresh start looks
    for what the search cannot see, other copies of a repeated eigenvalue for one. What it finds takes its place. That
    run takes 8 products, or a third of the search's where these are more; after a restart, which may pass an eigenvalue
    by, as many as the search, or fewer if they exclude that anything is missing.

    Where the products are stopped (`Stopped`) what the search has found until then is returned, as `unconfirmed`.

    Raises:
        Stopped: the products are stopped before the first.
        ValueError: k is not in 1..P, `max_products` < k, the budget holds fewer than k + 2 vectors, or A is not
            symmetric.

    >>> import torch
    >>> from repro.linalg.operator import Dense
    >>> A = Dense(torch.diag(torch.tensor([1.0, -5.0, 3.0, 0.5, 3.0])))
    >>> pairs = top_eigenpairs(A, 3)
    >>> [round(value, 3) for value in pairs.eigenvalues.tolist()]
    [-5.0, 3.0, 3.0]
    >>> bool(pairs.converged.all())
    True
    """
    rows = _rows(A, k, max_products, memory_budget)
    before, generator = A.products, torch.Generator().manual_seed(seed)
    search = _Search(A, rows, by, generator, memory_budget)
    while True:
        try:
            search.step()
        except Stopped:
            if search.size == 0:
                raise
        values, Y, couplings = search.ritz(k)
        good = is_converged(values, couplings.abs(), tolerance, A.dtype, search.scale)
        A.found(int(good.sum()), k)
        if A.stopped or search.exhausted or search.products >= max_products or (search.size >= k and bool(good.all())):
            break
        search.advance(k)
    vectors = torch.empty(len(values), A.dim, dtype=A.dtype, device=A.device)
    combine(search.Q[: search.size], Y, vectors)
    del search.Q
    ritz = values, vectors.T, couplings
    try:
        pairs, _ = confirmed(
            A,
            k,
            ritz,
            generator,
            by=by,
            tolerance=tolerance,
            scale=search.scale,
            steps=search.products if search.restarted else max(8, search.products // 3),
            max_products=before + max_products - A.products,
        )
    except Stopped:
        pairs = unconfirmed(A, ritz, tolerance, search.scale)
    return pairs._replace(products=A.products - before)


def _rows(A: LinearOperator, k: int, max_products: int, memory_budget: int) -> int:
    if not isinstance(k, Integral) or not 1 <= k <= A.dim:
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
        self.exhausted = self.restarted = False

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
        w = torch.sub(w, q, alpha=alpha).sub_((self.Q[near].T @ self.coupling.to(self.Q)[near]).to(w.device))
        w = orthogonalise(w, self.Q[: n + 1])
        self.size, self.products, self.beta = n + 1, self.products + 1, norm(w)
        self.exhausted = self.beta <= negligible(self.A.dtype, self.scale)
        self.next = w / self.beta if self.beta > 0 else w
        self.coupling = torch.zeros(n + 1, dtype=torch.float64)
        self.coupling[n] = self.beta

    def ritz(self, k: int) -> tuple[Tensor, Tensor, Tensor]:  # values [K], Y [size, K], couplings [K]
        """The k leading Ritz pairs; the residual of each is its coupling times the next direction."""
        values, Y = torch.linalg.eigh(self.T[: self.size, : self.size])
        chosen = leading(values, k, self.by)
        return values[chosen], Y[:, chosen], self.coupling @ Y[:, chosen]

    def advance(self, k: int) -> None:
        """Make room if the basis is full: the leading Ritz vectors are kept, and what they leave couples to them."""
        rows = len(self.Q)
        if self.size == rows:
            keep = min(k + (rows - k) // 2, rows - 1)
            values, Y, _ = self.ritz(keep)
            combine(self.Q[: self.size], Y, self.Q[:keep])
            self.T.zero_()
            self.T[:keep, :keep] = values.diag()
            self.size, self.coupling, self.restarted = keep, self.beta * Y[-1], True
            log.info("thick restart after %d products with %d Ritz vectors", self.products, keep)


def confirmed(
    A: LinearOperator,
    k: int,
    ritz: tuple[Tensor, Tensor, Tensor],
    generator: torch.Generator,
    *,
    by: Order,
    tolerance: float,
    scale: float,
    steps: int,
    max_products: int,
    copies: bool = False,
) -> tuple[Eigenpairs, float]:  # ritz: values [K], vectors [P, K], couplings [K]
    """Ritz pairs of a search with true residuals, and with the eigenpairs that it has missed in place of the last.

    A run of about `steps` products on the complement of the pairs looks for eigenvalues that are larger; see
    `repro.linalg.outside`. One that it finds joins the pairs, and the next run begins, as long as fewer than
    `max_products` are spent. Pairs smaller than what was seen at last are not the leading ones: they count as not
    converged.

    Args:
        k: pairs wanted; the search may have found fewer, where its Krylov space was exhausted.
        ritz: values and couplings in float64; a coupling times a unit vector that is common to all is the residual.
        scale: the norm of A.
        copies: For a density: look on until copies of the smallest pair are excluded too, not only what is larger, and
            add no zeros to the pairs of a search that found fewer than k.

    Returns:
        The pairs, and a size that no other eigenvalue is likely to exceed.
    """
    before, rounding = A.products, negligible(A.dtype, scale)
    values, vectors, couplings = ritz
    least = rounding if copies else -math.inf
    residuals = true_residuals(A, values, vectors, couplings, tolerance=tolerance, scale=scale)
    seen, likely = -math.inf, math.inf
    while True:
        converged = is_converged(values, residuals, tolerance, A.dtype, scale)
        if not converged.any():
            break
        smallest = float(size(values[converged], by).min())
        slack = tolerance * abs(smallest) + rounding
        few = len(values) < min(k, A.dim)
        seen, likely, missed = look_outside(
            A,
            vectors.T.contiguous(),
            generator,
            by=by,
            beyond=least if few else smallest + slack,
            certain=-math.inf if few else smallest - slack if copies else smallest + slack,
            steps=steps,
            tolerance=tolerance,
            scale=scale,
        )
        if missed is None:
            break
        product = A @ missed
        value = inner(missed, product)
        values = torch.cat([values, values.new_tensor([value])])
        residuals = torch.cat([residuals, residuals.new_tensor([norm(product - value * missed)])])
        vectors = torch.cat([vectors, missed[:, None]], dim=1)
        order = leading(values, k, by)
        values, residuals, vectors = values[order], residuals[order], vectors[:, order.to(vectors.device)]
        if A.products - before >= max_products and not few:
            break
    exact = converged = is_converged(values, residuals, tolerance, A.dtype, scale)
    if math.isfinite(seen):
        converged = exact & (size(values, by) + tolerance * values.abs() + rounding >= seen)
    if not converged.all():
        count = int((~converged).sum())
        log.warning("%d of %d eigenpairs not converged after %d products", count, len(values), A.products)
    if bool((exact & ~converged).any()):
        log.warning("an eigenvalue of size %.4g lies outside: the smaller pairs are not the leading ones", seen)
    values, residuals = values.to(A.device, A.dtype), residuals.to(A.device, A.dtype)
    return Eigenpairs(values, vectors, residuals, converged.to(A.device), A.products - before), likely


def unconfirmed(
    A: LinearOperator, ritz: tuple[Tensor, Tensor, Tensor], tolerance: float, scale: float
) -> Eigenpairs:  # ritz: values [K], vectors [P, K], couplings [K]
    """Ritz pairs of a search that was stopped before they could be `confirmed`.

    Their residuals are the couplings, and as much as rounding may add; that no larger eigenvalue, and no copy of one,
    was passed by, nobody has looked.
    """
    values, vectors, couplings = ritz
    residuals = torch.hypot(couplings, torch.full_like(couplings, negligible(A.dtype, scale)))
    converged = is_converged(values, residuals, tolerance, A.dtype, scale)
    values, residuals = values.to(A.device, A.dtype), residuals.to(A.device, A.dtype)
    return Eigenpairs(values, vectors, residuals, converged.to(A.device), 0)


def true_residuals(
    A: LinearOperator, values: Tensor, vectors: Tensor, couplings: Tensor, *, tolerance: float, scale: float
) -> Tensor:  # [K], [P, K], [K] -> [K]
    """|A q - lambda q| of Ritz pairs, rounding included, of which the couplings of a Lanczos run know nothing.

    One product, with the pair that has converged best, measures the rounding, and twice as much counts for every pair.
    Where ten times as much would decide whether a pair has converged, its residual is measured by a product of its own.
    """
    claimed = is_converged(values, couplings.abs(), tolerance, A.dtype, scale)
    if not claimed.any():
        return couplings.abs()

    def measured(which: Tensor) -> Tensor:  # bool [K] -> residuals of those
        V = vectors[:, which.to(vectors.device)]
        columns = A @ V - V * values[which].to(V)
        return torch.linalg.vector_norm(columns, dim=0, dtype=torch.float64).cpu()

    best = torch.arange(len(values)) == couplings.abs().argmin()
    rounding = float(measured(best))
    residuals = torch.hypot(couplings, torch.full_like(couplings, 2 * rounding))
    residuals[best] = rounding
    close = claimed & ~best & (10 * rounding > tolerance * values.abs())
    if close.any():
        residuals[close] = measured(close)
    return residuals
