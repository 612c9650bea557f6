"""Lanczos tridiagonalisation (Golub & Van Loan 2013, Section 10.1; Papyan 2020, Algorithms 1 and 2)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

import torch
from torch import Tensor

from repro.linalg.operator import LinearOperator, Stopped
from repro.linalg.probe import CHUNK, check_pair, inner, norm, random_unit_vector

log = logging.getLogger(__name__)
Until = Callable[[Tensor, Tensor], bool]  # alpha [m], beta [m] of the steps made -> whether they are enough


class Tridiagonal(NamedTuple):
    """M Lanczos steps on A: T = Q A Q^T is tridiagonal, and A Q^T = Q^T T + beta[-1] q e_M^T with a unit q."""

    alpha: Tensor  # [M]     diagonal of T; float64, CPU
    beta: Tensor  # [M]     off-diagonal of T, then the norm of the residual; float64, CPU
    Q: Tensor  # [M, P]  orthonormal Lanczos vectors, one per row; may live on the host; empty if not kept

    def matrix(self) -> Tensor:  # [M, M]
        return self.alpha.diag() + self.beta[:-1].diag(1) + self.beta[:-1].diag(-1)

    def eigh(self) -> tuple[Tensor, Tensor]:  # Ritz values [M] ascending, eigenvectors of T [M, M]
        return torch.linalg.eigh(self.matrix())


class Ritz(NamedTuple):
    """What `fast_lanczos` keeps of a run: Gauss quadrature of the spectrum seen from the starting vector."""

    values: Tensor  # [M]  Ritz values, ascending; the quadrature nodes
    weights: Tensor  # [M]  squared first row of the eigenvectors of T; they sum to one
    residuals: Tensor  # [M]  |beta_M Y[M, m]|, the residual norm of each Ritz pair


def negligible(dtype: torch.dtype, scale: float) -> float:
    """Size below which a residual of a matrix of norm `scale` is rounding: the Krylov space is exhausted."""
    return torch.finfo(dtype).eps ** 0.75 * scale


def project(Q: Tensor, v: Tensor) -> Tensor:  # [M, P], [P] -> [M]
    """Q v, on a CPU in chunks of coordinates that are added up in float64.

    There a float32 product sums one after the other, and over millions of coordinates that costs orthogonality; a GPU
    sums in a tree. A chunk itself is added up in float32, hence a small one.
    """
    chunk = 1 << 12 if Q.device.type == "cpu" else len(v)
    total = torch.zeros(len(Q), dtype=torch.float64, device=Q.device)
    for begin in range(0, len(v), chunk):
        total += Q[:, begin : begin + chunk] @ v[begin : begin + chunk]
    return total


def remove(w: Tensor, Q: Tensor) -> None:  # [P], [M, P]
    """w becomes w - Q^T Q w, on a CPU in chunks that stay in the cache."""
    along = project(Q, w).to(w)
    chunk = CHUNK if Q.device.type == "cpu" else len(w)
    for begin in range(0, len(w), chunk):
        w[begin : begin + chunk] -= Q[:, begin : begin + chunk].T @ along


def orthogonalise(w: Tensor, Q: Tensor) -> Tensor:  # [P], [M, P] -> [P]
    """w - Q^T Q w by classical Gram-Schmidt.

    A second pass follows where the first took away much of w, and with it digits (Parlett 1998, Section 6.9: "twice is
    enough"). Where Q lies on the host, w travels and not Q.
    """
    v = w.to(Q.device, copy=True)
    before = norm(v)
    remove(v, Q)
    if norm(v) < 0.7 * before:
        remove(v, Q)
    return v.to(w.device)


def lanczos(
    A: LinearOperator,
    start: Tensor,
    steps: int,
    *,
    orthogonal_to: Tensor | None = None,
    scale: float = 0.0,
    basis_device: torch.device | None = None,
    until: Until | None = None,
) -> Tridiagonal:  # start [P], orthogonal_to [K, P]
    """At most `steps` Lanczos steps with full reorthogonalisation; keeps steps x P numbers.

    With orthonormal rows `orthogonal_to` = U the matrix is (I - U^T U) A (I - U^T U) on the complement of U; then
    `scale`, the norm of A, says what counts as rounding there. The basis lies on `basis_device`, by default the device
    of A. Returns fewer rows if the Krylov space is exhausted: at the rank of A plus one at the latest, always at P.
    With `until`, which is asked after each step, also where it says so, or where the products are stopped.

    Raises:
        Stopped: the products are stopped, and there is no `until` or no step.
        ValueError: A is not symmetric, or a product is not finite; see `repro.linalg.probe.check_pair`.
    """
    known = 0 if orthogonal_to is None else len(orthogonal_to)
    steps = min(steps, A.dim - known)
    basis = torch.empty(known + steps, A.dim, dtype=A.dtype, device=basis_device or A.device)
    if orthogonal_to is not None:
        basis[:known] = orthogonal_to
    alpha, beta = torch.zeros(steps, dtype=torch.float64), torch.zeros(steps, dtype=torch.float64)
    w = orthogonalise(start, basis[:known])
    q, size = torch.zeros_like(start), norm(w)
    for m in range(steps):
        previous, q = q, w / size
        basis[known + m] = q
        try:
            w = A @ q
        except Stopped:
            if until is None or m == 0:
                raise
            m -= 1
            break
        alpha[m] = inner(q, w)
        coupling = size if m else 0.0
        if m == 1:  # beta[0] is <A q_0, q_1>
            check_pair(A, inner(w, previous), coupling, norm(w) + abs(float(alpha[0])) + coupling)
        # First what the last two vectors explain: then one pass over the whole basis is nearly always enough.
        w = torch.sub(w, q, alpha=float(alpha[m])).sub_(previous, alpha=coupling)
        w = orthogonalise(w, basis[: known + m + 1])
        beta[m] = size = norm(w)
        scale = max(scale, abs(float(alpha[m])), coupling)
        if size <= negligible(A.dtype, scale) or (until is not None and until(alpha[: m + 1], beta[: m + 1])):
            break
    return Tridiagonal(alpha[: m + 1], beta[: m + 1], basis[known : known + m + 1])


def slow_lanczos(A: LinearOperator, *, seed: int = 0) -> tuple[Tensor, Tensor]:  # -> T [P, P], V [P, P]
    """SlowLanczos (Algorithm 1): P steps, the whole basis kept and reorthogonalised, T = V^T A V.

    T is tridiagonal and has the eigenvalues of A with their multiplicities: where the Krylov space is exhausted the
    basis goes on with a fresh random vector. O(P^2) memory: illustrative.
    """
    generator = torch.Generator().manual_seed(seed)
    basis = torch.empty(0, A.dim, dtype=A.dtype, device=A.device)
    while len(basis) < A.dim:
        chain = lanczos(A, random_unit_vector(A, generator), A.dim, orthogonal_to=basis)
        basis = torch.cat([basis, chain.Q])
    V = basis.T
    return V.T @ (A @ V), V


def fast_lanczos(
    A: LinearOperator,
    steps: int,
    *,
    start: Tensor | None = None,
    seed: int = 0,
    orthogonal_to: Tensor | None = None,
    scale: float = 0.0,
) -> Ritz:  # start [P], orthogonal_to [K, P]
    """FastLanczos (Algorithm 2): `steps` steps of the three-term recurrence without reorthogonalisation; O(P) memory.

    Lost orthogonality shows as ghost copies of the extreme eigenvalues. They share the weight of the copied one, so the
    density is right; Ritz values must not be counted as eigenvalues. Stops early where beta reaches zero (low-rank A).
    `start` is drawn from `seed` if it is not given; `orthogonal_to` and `scale` as in `lanczos`.
    """
    v = start if start is not None else random_unit_vector(A, torch.Generator().manual_seed(seed))
    alpha, beta = [], []
    for step in islice(recurrence(A, v, orthogonal_to=orthogonal_to, scale=scale), steps):  # its q is let go at once
        alpha.append(step.alpha)
        beta.append(step.beta)
    T = tridiagonal(alpha, beta)
    values, Y = T.eigh()
    return Ritz(values, Y[0] ** 2, (T.beta[-1] * Y[-1]).abs())


class Step(NamedTuple):
    """One step of the three-term recurrence A q = alpha q + beta_before q_before + beta q_after."""

    q: Tensor  # [P]  unit vector
    alpha: float
    beta: float


def recurrence(
    A: LinearOperator, start: Tensor, *, orthogonal_to: Tensor | None = None, scale: float = 0.0
) -> Iterator[Step]:  # start [P], orthogonal_to [K, P]
    """The steps of `fast_lanczos`, one product each; they end where the Krylov space is exhausted."""
    v = start if orthogonal_to is None else orthogonalise(start, orthogonal_to)
    v, previous = v / norm(v), torch.zeros_like(v)
    alpha = beta = 0.0  # of the step before
    for m in count():
        w = A @ v
        if m == 1:  # beta is <A q_0, q_1>, to which rounding adds what is left of q_0 in q_1
            expected = beta + alpha * inner(v, previous)
            check_pair(A, inner(w, previous), expected, norm(w) + abs(alpha) + beta)
        w = torch.sub(w, previous, alpha=beta)
        alpha = inner(w, v)
        w.sub_(v, alpha=alpha)
        if orthogonal_to is not None:  # last: what v has of U by rounding would grow by alpha / beta with each step
            w = orthogonalise(w, orthogonal_to)
        scale, beta = max(scale, abs(alpha), beta), norm(w)
        yield Step(v, alpha, beta)
        if beta <= negligible(A.dtype, scale):
            break
        previous, v = v, w / beta


def tridiagonal(alpha: Sequence[float], beta: Sequence[float]) -> Tridiagonal:
    """T of a run that keeps no basis."""
    return Tridiagonal(
        torch.tensor(alpha, dtype=torch.float64), torch.tensor(beta, dtype=torch.float64), torch.empty(0)
    )


def basis_device(A: LinearOperator, rows: int, memory_budget: int) -> torch.device | None:
    """Where a basis of rows x P fits: on the device of A, else on the host, else nowhere (None: above the budget)."""
    size = rows * A.dim * torch.finfo(A.dtype).bits // 8
    place: torch.device | None = A.device
    if size > memory_budget:
        place = None
    elif A.device.type == "cuda" and size > 0.8 * _free(A.device):
        place = torch.device("cpu")
    log.info("Lanczos basis of %d x %d (%.2f GB): %s", rows, A.dim, size / 1e9, place or "above the memory budget")
    return place


def _free(device: torch.device) -> int:
    """Bytes of GPU memory not in use, counting what the allocator holds ready."""
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached
