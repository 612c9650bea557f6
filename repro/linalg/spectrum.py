"""Outliers and bulk density from the same Lanczos runs: the default way to look at a spectrum."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from repro.linalg.density import padded
from repro.linalg.eigenpairs import Eigenpairs, combine, is_converged, leading, top_eigenpairs
from repro.linalg.lanczos import Tridiagonal, basis_device, fast_lanczos, lanczos
from repro.linalg.operator import LinearOperator
from repro.linalg.probe import random_unit_vector
from repro.spectra.record import Spectrum

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LanczosSpectrum(Spectrum):
    """The record of a spectrum, with the eigenvectors of its leading eigenvalues and what it cost."""

    vectors: Tensor  # [P, k]  orthonormal columns
    products: int  # matrix-vector products spent in all


def spectrum(
    A: LinearOperator, *, k: int, steps: int, probes: int, tolerance: float, memory_budget: int, seed: int
) -> LanczosSpectrum:
    """Top k eigenpairs and a quadrature of the whole spectrum in about probes x steps products.

    The first probe's Lanczos run with full reorthogonalisation yields the outliers. Those that converged (relative
    residual <= tolerance) are then exact in every probe: mass 1/P each, where a random probe sees 1/P times a
    chi-square variable. The other probes run on the orthogonal complement of the converged vectors and weigh it by the
    remaining mass 1 - K/P; the first probe's other nodes are scaled to it. The trace keeps its right expectation
    even if the pairs are inexact. Probes estimate the same measure independently, hence an error band.

    The basis holds steps x P numbers. If they exceed `memory_budget` bytes the outliers come from thick restarts within
    the budget, and the density from Lanczos runs that keep no basis.

    Args:
        k: Eigenpairs wanted, by magnitude; 0 for a density without deflation.
        steps: Lanczos steps of each probe, the number of quadrature nodes; more than k.

    Raises:
        ValueError: steps <= k, no probes, or a budget too small for k eigenpairs.
    """
    if steps <= k or probes < 1:
        raise ValueError(f"{steps} Lanczos steps and {probes} probes cannot give {k} eigenpairs: more steps than pairs")
    before, generator = A.products, torch.Generator().manual_seed(seed)
    device = basis_device(A, min(steps, A.dim), memory_budget)
    rows: list[tuple[Tensor, Tensor]] = []
    if device is None:
        pairs = _restarted(A, k, steps, tolerance, memory_budget, seed)
    else:
        run = lanczos(A, random_unit_vector(A, generator), steps, basis_device=device)
        pairs = ritz_pairs(A, run, k, tolerance)
        rows.append(_first_probe(run, pairs))
        del run
    known, U = pairs.eigenvalues[pairs.converged], pairs.vectors[:, pairs.converged].T.contiguous()
    scale = float(known.abs().max()) if len(known) else 0.0
    while len(rows) < probes and len(known) < A.dim:
        start = random_unit_vector(A, generator)
        nodes, weights, residuals = _on_complement(A, start, steps - len(known), U, scale, device)
        rows.append(_with_outliers(known.double().cpu(), nodes, weights, A.dim))
        _warn_if_missed(pairs, nodes, residuals, k)
    all_nodes, all_weights = padded([row[0] for row in rows], steps), padded([row[1] for row in rows], steps)
    return LanczosSpectrum(
        all_nodes,
        all_weights,
        pairs.eigenvalues.double().cpu().numpy(),
        pairs.residuals.double().cpu().numpy(),
        pairs.converged.cpu().numpy(),
        A.dim,
        pairs.vectors,
        A.products - before,
    )


def ritz_pairs(A: LinearOperator, run: Tridiagonal, k: int, tolerance: float) -> Eigenpairs:
    """The k leading Ritz pairs of a Lanczos run on A, with residuals from the Lanczos identity (no product)."""
    values, Y = run.eigh()
    chosen = leading(values, k, "magnitude")
    residuals = run.beta[-1] * Y[-1, chosen].abs()
    converged = is_converged(values[chosen], residuals, tolerance, A.dtype, float(values.abs().max()))
    vectors = torch.empty(len(chosen), A.dim, dtype=A.dtype, device=A.device)
    combine(run.Q, Y[:, chosen], vectors)
    if not converged.all():
        log.warning("%d of %d eigenpairs not converged after %d steps", int((~converged).sum()), k, len(values))
    return Eigenpairs(
        values[chosen].to(A.device, A.dtype),
        vectors.T,
        residuals.to(A.device, A.dtype),
        converged.to(A.device),
        len(run.alpha),
    )


def _first_probe(run: Tridiagonal, pairs: Eigenpairs) -> tuple[Tensor, Tensor]:
    """The quadrature of the run that found the outliers, each converged one set to its exact mass."""
    values, Y = run.eigh()
    order = leading(values, len(values), "magnitude")
    outlier = torch.zeros(len(values), dtype=torch.bool)
    outlier[: len(pairs.converged)] = pairs.converged.cpu()
    nodes, weights = values[order], Y[0, order] ** 2
    return _with_outliers(nodes[outlier], nodes[~outlier], weights[~outlier], run.Q.shape[1])


def _with_outliers(known: Tensor, nodes: Tensor, weights: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Known eigenvalues with mass 1/P each, then the nodes of the complement with the mass that remains."""
    rest = weights / weights.sum() * (1 - len(known) / dim)
    return torch.cat([known, nodes]), torch.cat([torch.full_like(known, 1 / dim), rest])


def _on_complement(
    A: LinearOperator, start: Tensor, steps: int, U: Tensor, scale: float, device: torch.device | None
) -> tuple[Tensor, Tensor, Tensor]:  # U [K, P] -> nodes [M], weights [M], residuals [M]
    if device is None:
        return fast_lanczos(A, steps, start=start, orthogonal_to=U, scale=scale)
    run = lanczos(A, start, steps, orthogonal_to=U, scale=scale, basis_device=device)
    values, Y = run.eigh()
    return values, Y[0] ** 2, run.beta[-1] * Y[-1].abs()


def _restarted(A: LinearOperator, k: int, steps: int, tolerance: float, memory_budget: int, seed: int) -> Eigenpairs:
    if k > 0:
        return top_eigenpairs(A, k, tolerance=tolerance, max_products=steps, memory_budget=memory_budget, seed=seed)
    none = torch.empty(0, dtype=A.dtype, device=A.device)
    return Eigenpairs(none, none.new_empty(A.dim, 0), none, none.bool(), 0)


def _warn_if_missed(pairs: Eigenpairs, nodes: Tensor, residuals: Tensor, k: int) -> None:
    """A later probe starts afresh: what it finds beyond the k-th pair is a copy the first could not see."""
    if k == 0 or not bool(pairs.converged.all()):
        return
    smallest = float(pairs.eigenvalues[-1].abs())
    missed = nodes[nodes.abs() - residuals > 1.01 * smallest]
    if len(missed):
        log.warning("a later probe found %d more eigenvalue(s) above the %d leading ones: %s", len(missed), k, missed)
