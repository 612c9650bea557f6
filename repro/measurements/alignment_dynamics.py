"""Alignment over the epochs of training: top eigenvectors of G against the class means (ours; the paper has none)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repro.curvature.cross_class import class_structure
from repro.curvature.gauss_newton import GaussNewton
from repro.linalg.eigenpairs import top_eigenpairs
from repro.measurements.alignment import overlaps, principal_cosines, spanned_contributions
from repro.measurements.dynamics import spread_epochs, stacked

if TYPE_CHECKING:
    from repro.trained import TrainedRun


def measure(
    run: TrainedRun, *, epochs: int | None, tolerance: float, max_products: int, memory_budget: float, seed: int
) -> dict[str, np.ndarray]:
    """The C − 1 largest eigenpairs of G on the training set against span{g_c}, at checkpoints of the run.

    Args:
        epochs: how many checkpoints, as in `dynamics`; None takes all.
        tolerance, max_products, memory_budget, seed: see `repro.linalg.eigenpairs.top_eigenpairs`.

    Returns, T checkpoints:
        epochs [T]: the epochs they were taken after; 0 is the initialisation.
        eigenvalues, residuals (absolute), converged [T, C − 1].
        overlap_class [T, C − 1]: squared length of the projection of each eigenvector onto span{g_c}, in [0, 1].
        class_cosines [T, C − 1]: cosines of the principal angles between the eigenvectors and span{g_c}.
        share_<part> [T, C − 1]: u^T part u / λ for part = class, cross, same; what they lack of one is G_within's.
        dim: P; a random vector overlaps with C directions by C / P.

    Where a Lanczos run ends early rows are filled up with zeros, not converged.

    Raises:
        ValueError: the run has no checkpoints, or the class means are zero at one of them.
    """
    chosen = spread_epochs(run, epochs)
    rows: list[dict[str, np.ndarray]] = []
    for epoch in chosen:
        model, data = run.at_epoch(epoch), run.batches()
        G, structure = GaussNewton(model, data), class_structure(model, data)
        pairs = top_eigenpairs(
            G,
            run.train.classes - 1,
            tolerance=tolerance,
            max_products=max_products,
            memory_budget=int(memory_budget),
            seed=seed,
            by="largest",
        )
        basis = structure.basis("class")
        found = {field: getattr(pairs, field) for field in ("eigenvalues", "residuals", "converged")}
        found |= {
            f"share_{part}": value / pairs.eigenvalues
            for part, value in spanned_contributions(structure, pairs.vectors).items()
        }
        found["overlap_class"] = overlaps(pairs.vectors, basis)
        found["class_cosines"] = principal_cosines(pairs.vectors, basis)
        rows.append({key: value.cpu().numpy() for key, value in found.items()})
    arrays = {name: stacked([row[name] for row in rows]) for name in rows[0]}
    return arrays | {"epochs": np.array(chosen), "dim": np.array(G.dim)}
