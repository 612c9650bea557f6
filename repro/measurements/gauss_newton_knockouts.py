"""The spectrum of G, and of G with each of its four parts knocked out (Papyan 2020, Section 6, Figures 1 and 5)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from repro.curvature.cross_class import SPANNED_PARTS, ClassStructure, Knockout, class_structure
from repro.curvature.gauss_newton import GaussNewton
from repro.linalg.operator import LowRank
from repro.linalg.spectrum import spectrum

if TYPE_CHECKING:
    from repro.trained import TrainedRun


def measure(
    run: TrainedRun,
    *,
    knockout: Knockout,
    outliers: int | None,
    steps: int,
    probes: int,
    tolerance: float,
    memory_budget: float,
    seed: int,
) -> dict[str, np.ndarray]:
    """Quadrature of G and of each knockout on the training set, and the eigenvalues of the parts themselves.

    Subtracting G_within leaves a matrix of rank C (C − 1), whose spectrum is exact: no Lanczos, no probes. Projecting
    it out is not defined at any bearable cost (its span is all the gradients), so 'within' is always subtracted.

    Args:
        knockout: 'subtraction' G − part, or 'projection' onto the complement of the part's span.
        outliers, steps, probes, tolerance, memory_budget: as in `hessian_spectrum`.

    Returns, with <s> one of full, class, cross, within, same (what was knocked out; full: nothing):
        <s>_nodes, <s>_weights [probes, M]: eigenvalues of the mean loss, and their share of all P eigenvalues.
        <s>_eigenvalues, <s>_residuals, <s>_converged [k], <s>_dim: see `repro.linalg.spectrum.Spectrum.arrays`.
        class_part [C], cross_part [C (C − 2)], same_part [C]: the exact eigenvalues of those parts, descending.
        mass [C, C]: the weights w_{c,c'}, which sum to one.
    """
    data = run.batches()
    G, structure = GaussNewton(run.model, data), class_structure(run.model, data)
    k = run.train.classes if outliers is None else outliers
    estimate = partial(
        spectrum, k=k, steps=steps, probes=probes, tolerance=tolerance, memory_budget=int(memory_budget), seed=seed
    )
    arrays = estimate(G).arrays("full")
    for part in SPANNED_PARTS:
        arrays |= estimate(structure.knockout(G, part, how=knockout)).arrays(part)
    arrays |= _without_within(structure, k, steps)
    gram = structure.gram()
    for part in SPANNED_PARTS:
        arrays[f"{part}_part"] = gram.eigenvalues(part).cpu().numpy()
    return arrays | {"mass": gram.weights.cpu().numpy()}


def _without_within(structure: ClassStructure, k: int, steps: int) -> dict[str, np.ndarray]:
    """The exact spectrum of G − G_within: C (C − 1) eigenvalues of mass 1/P, all others zero.

    Padded to `steps` nodes: the smoothing when drawing depends on their number, and be that of the others.
    """
    low_rank: list[LowRank] = [structure.class_part, structure.cross_part, structure.same_part]
    columns = torch.cat([part.U * part.weights.sqrt() for part in low_rank], dim=1)  # [P, K]
    P, C = len(columns), len(structure.weights)
    rank = min(C * (C - 1), P - 1)
    found = torch.linalg.eigvalsh((columns.T @ columns).double()).flip(0)[:rank].clamp(min=0).cpu().numpy()
    nodes, weights = np.zeros((1, max(steps, rank + 1))), np.zeros((1, max(steps, rank + 1)))
    nodes[0, :rank], weights[0, :rank], weights[0, rank] = found, 1 / P, 1 - rank / P
    return {
        "within_nodes": nodes,
        "within_weights": weights,
        "within_eigenvalues": found[:k],
        "within_residuals": np.zeros(min(k, rank)),
        "within_converged": np.ones(min(k, rank), dtype=bool),
        "within_dim": np.array(P),
    }
