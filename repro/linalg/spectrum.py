"""Outliers and bulk density from the same Lanczos runs: the default way to look at a spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repro.linalg.density import padded
from repro.linalg.eigenpairs import (
    Eigenpairs,
    combine,
    confirmed,
    is_converged,
    leading,
    top_eigenpairs,
    unconfirmed,
)
from repro.linalg.lanczos import Tridiagonal, basis_device, fast_lanczos, lanczos, negligible, tridiagonal
from repro.linalg.operator import LinearOperator, Stopped
from repro.linalg.probe import random_unit_vector
from repro.spectra.broadening import moved
from repro.spectra.record import Spectrum

LOOK = 8  # after so many steps each it is looked how far a run has come (ours)


@dataclass(frozen=True, eq=False)
class LanczosSpectrum(Spectrum):
    """The record of a spectrum, with the eigenvectors of its leading eigenvalues and what it cost."""

    vectors: Tensor  # [P, k]  orthonormal columns
    products: int  # matrix-vector products spent in all


def spectrum(
    A: LinearOperator,
    *,
    k: int,
    steps: int = 128,
    probes: int = 1,
    tolerance: float = 1e-3,
    memory_budget: int = 8 << 30,
    seed: int = 0,
    settled: float | None = None,
) -> LanczosSpectrum:
    """Top k eigenpairs and a quadrature of the whole spectrum in about probes x steps products.

    The first probe's Lanczos run with full reorthogonalisation yields the eigenpairs. `confirmed` checks them in about
    1 + max(16, steps / 8) products, or fewer, and adds copies, which one start cannot see.

    Those that converged, and of which no copy is seen outside, are taken out of the density: they have their exact
    mass 1/P in every probe, where a random probe sees 1/P times a chi-square variable. All other eigenvalues, repeated
    ones among them, keep the mass that the probe sees, in expectation m/P for m copies. Later probes run on the
    complement of what is taken out and weigh it by the remaining mass 1 - K/P; the first probe's other nodes are scaled
    to it. The trace keeps its right expectation even if the pairs are inexact. Probes estimate the same measure
    independently, hence an error band.

    The basis holds steps x P numbers. If they exceed `memory_budget` bytes the eigenpairs come from thick restarts
    within the budget, and the density from Lanczos runs that keep no basis, with starts of their own: then all
    converged pairs are taken out, and the probes see what copies are left.

    Where the products are stopped (`Stopped`) what there is by then is returned: the leading Ritz pairs of a shorter
    run, not confirmed and none of them taken out of the density, or the pairs and the probes that are finished; it may
    be no probe at all.

    Args:
        k: Eigenpairs wanted, by magnitude; 0 for a density without deflation.
        steps: Lanczos steps of each probe, the number of quadrature nodes; more than k.
        settled: With it the first run is over, and with it the number of steps found, as soon as the k pairs have
            converged and 8 more steps have moved less than this share of the density without them, at the resolution
            of 64 steps (`repro.spectra.broadening.moved`). Where the budget does not hold the basis, all steps are
            made.

    Raises:
        Stopped: the products are stopped before the first.
        ValueError: steps <= k, no probes, or a budget too small for k eigenpairs.

    >>> import torch
    >>> from repro.linalg.operator import Dense
    >>> A = Dense(torch.diag(torch.cat([torch.tensor([9.0, -7.0]), torch.linspace(-1, 1, 98)])))
    >>> found = spectrum(A, k=2, steps=30)
    >>> [round(value, 3) for value in found.eigenvalues.tolist()]
    [9.0, -7.0]
    >>> found.nodes.shape, round(float(found.weights.sum()), 6)
    ((1, 30), 1.0)
    """
    if steps <= k or probes < 1:
        raise ValueError(f"{steps} Lanczos steps and {probes} probes cannot give {k} eigenpairs: more steps than pairs")
    before, generator = A.products, torch.Generator().manual_seed(seed)
    device = basis_device(A, min(steps, A.dim), memory_budget)
    rows: list[tuple[Tensor, Tensor]] = []
    own = seed + 7919  # another stream than the probes: their starts must know nothing of the pairs
    if device is None:
        pairs = _restarted(A, k, steps, tolerance, memory_budget, own)
        out = pairs.converged & (not A.stopped)
    else:
        look = _Look(A, k, tolerance, settled)
        run = lanczos(A, random_unit_vector(A, generator), steps, basis_device=device, until=look)
        if A.stopped or look.enough:
            steps = len(run.alpha)  # the smoothing of a curve goes by the number of nodes
        pairs, out = _from_run(A, run, k, tolerance, own)
        rows.append(_first_probe(run, pairs, out))
        del run
    known, U = pairs.eigenvalues[out].double().cpu(), pairs.vectors[:, out].T.contiguous()
    scale = float(known.abs().max()) if len(known) else 0.0
    while len(rows) < probes:
        nodes = weights = torch.empty(0, dtype=torch.float64)
        if len(known) < A.dim:
            start = random_unit_vector(A, generator)
            try:
                nodes, weights = _on_complement(A, start, steps - len(known), U, scale, device)
            except Stopped:
                break
        rows.append(_with_outliers(known, nodes, weights, A.dim))
    length = max([steps, *(len(nodes) for nodes, _ in rows)])
    return LanczosSpectrum(
        padded([row[0] for row in rows], length),
        padded([row[1] for row in rows], length),
        pairs.eigenvalues.double().cpu().numpy(),
        pairs.residuals.double().cpu().numpy(),
        pairs.converged.cpu().numpy(),
        out.cpu().numpy(),
        A.dim,
        pairs.vectors,
        A.products - before,
    )


class _Look:
    """How far a run has come: A is told how many of the k pairs have converged; whether that is `enough`."""

    def __init__(self, A: LinearOperator, k: int, tolerance: float, settled: float | None):
        self.A, self.k, self.tolerance, self.settled, self.enough = A, k, tolerance, settled, False
        self._density: tuple[np.ndarray, np.ndarray] | None = None  # nodes and weights without the pairs, the last time

    def __call__(self, alpha: Tensor, beta: Tensor) -> bool:  # [m], [m] -> whether the run is over
        if len(alpha) % LOOK or not (self.A.listening or self.settled):
            return False
        values, Y = tridiagonal(alpha.tolist(), beta.tolist()).eigh()
        top, scale = leading(values, self.k, "magnitude"), float(values.abs().max())
        residuals = (beta[-1] * Y[-1, top]).abs()
        converged = int(is_converged(values[top], residuals, self.tolerance, self.A.dtype, scale).sum())
        self.A.found(converged, self.k)
        if self.settled:
            rest = torch.ones_like(values, dtype=torch.bool).index_fill(0, top, False)
            before, self._density = self._density, (values[rest].numpy(), (Y[0, rest] ** 2).numpy())
            if converged == self.k and before is not None and len(before[0]):
                self.enough = moved(*before, *self._density) < self.settled
        return self.enough


def _from_run(A: LinearOperator, run: Tridiagonal, k: int, tolerance: float, seed: int) -> tuple[Eigenpairs, Tensor]:
    """The k leading Ritz pairs of a Lanczos run on A, confirmed; and which are taken out of the density.

    Where the products are stopped the pairs are not confirmed, and as each may have copies none is taken out.
    """
    values, Y = run.eigh()
    chosen, scale = leading(values, k, "magnitude"), float(values.abs().max())
    vectors = torch.empty(len(chosen), A.dim, dtype=A.dtype, device=A.device)
    combine(run.Q, Y[:, chosen], vectors)
    ritz = values[chosen], vectors.T, run.beta[-1] * Y[-1, chosen]
    try:
        pairs, likely = confirmed(
            A,
            k,
            ritz,
            torch.Generator().manual_seed(seed),
            by="magnitude",
            tolerance=tolerance,
            scale=scale,
            steps=_confirming(len(values)),
            max_products=len(values),
            copies=True,
        )
    except Stopped:
        pairs, likely = unconfirmed(A, ritz, tolerance, scale), math.inf
    single = (1 - tolerance) * pairs.eigenvalues.abs() - negligible(A.dtype, scale) > likely
    return pairs, pairs.converged & single


def _confirming(steps: int) -> int:
    """Products that confirm the pairs of a run of so many steps, where it has missed nothing."""
    return max(16, steps // 8)


def usual_products(steps: int, probes: int) -> int:
    """About how many products `spectrum` makes; fewer where a Krylov space is exhausted, more where pairs are added."""
    return probes * steps + 1 + _confirming(steps)


def _first_probe(run: Tridiagonal, pairs: Eigenpairs, out: Tensor) -> tuple[Tensor, Tensor]:
    """The quadrature of the run that found the pairs, with those taken out at their exact mass."""
    values, Y = run.eigh()
    U = pairs.vectors[:, out].to(run.Q.device)
    inside = Y.T @ (run.Q @ U).double().cpu()  # [M, K]  Ritz vectors times those taken out
    rest = (inside**2).sum(dim=1) < 0.5
    return _with_outliers(pairs.eigenvalues[out].double().cpu(), values[rest], Y[0, rest] ** 2, run.Q.shape[1])


def _with_outliers(known: Tensor, nodes: Tensor, weights: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Known eigenvalues with mass 1/P each, then the nodes of the complement with the mass that remains."""
    rest = weights / weights.sum() * (1 - len(known) / dim)
    return torch.cat([known, nodes]), torch.cat([torch.full_like(known, 1 / dim), rest])


def _on_complement(
    A: LinearOperator, start: Tensor, steps: int, U: Tensor, scale: float, device: torch.device | None
) -> tuple[Tensor, Tensor]:  # U [K, P] -> nodes [M], weights [M]
    if device is None:
        values, weights, _ = fast_lanczos(A, steps, start=start, orthogonal_to=U, scale=scale)
        return values, weights
    values, Y = lanczos(A, start, steps, orthogonal_to=U, scale=scale, basis_device=device).eigh()
    return values, Y[0] ** 2


def _restarted(A: LinearOperator, k: int, steps: int, tolerance: float, memory_budget: int, seed: int) -> Eigenpairs:
    if k > 0:
        k, budget = min(k, A.dim), memory_budget
        return top_eigenpairs(A, k, tolerance=tolerance, max_products=steps, memory_budget=budget, seed=seed)
    none = torch.empty(0, dtype=A.dtype, device=A.device)
    return Eigenpairs(none, none.new_empty(A.dim, 0), none, none.bool(), 0)
