"""G and its parts over the epochs of training (Papyan 2020, Section 6, Figure 6)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from repro.curvature.cross_class import SPANNED_PARTS, class_structure
from repro.curvature.gauss_newton import GaussNewton
from repro.linalg.spectrum import spectrum

if TYPE_CHECKING:
    from repro.trained import TrainedRun


def measure(
    run: TrainedRun, *, epochs: int | None, steps: int, probes: int, tolerance: float, memory_budget: float, seed: int
) -> dict[str, np.ndarray]:
    """Spectra of G and of G_within, and the exact eigenvalues of the other parts, at checkpoints of the run.

    Args:
        epochs: how many checkpoints, evenly spread over those kept (log-spaced, the first and the last among them);
            None takes all.
        steps, probes, tolerance, memory_budget: as in `hessian_spectrum`; C eigenpairs of G and none of G_within.

    Returns, T checkpoints:
        epochs [T]: the epochs they were taken after; 0 is the initialisation.
        loss [T]: mean cross-entropy on the training set, in eval mode.
        class_part [T, C], cross_part [T, C (C − 2)], same_part [T, C]: exact eigenvalues of the parts, descending.
        <s>_nodes, <s>_weights [T, probes, M], for <s> = gauss_newton and within: quadrature of their spectra.
        gauss_newton_eigenvalues, _residuals, _converged [T, C]: the largest eigenvalues of G.
        own_share [T, C]: mean probability of the own class, w_{c,c} / Σ_{c'} w_{c,c'}.
        gauss_newton_dim: P.

    Where a Lanczos run ends early (a matrix that underflows, say) rows are filled up with zeros, not converged.
    """
    chosen = spread_epochs(run, epochs)
    estimate = partial(
        spectrum, steps=steps, probes=probes, tolerance=tolerance, memory_budget=int(memory_budget), seed=seed
    )
    rows: list[dict[str, np.ndarray]] = []
    for epoch in chosen:
        model, data = run.at_epoch(epoch), run.batches()
        G, structure = GaussNewton(model, data), class_structure(model, data)
        row = estimate(G, k=run.train.classes).arrays("gauss_newton")
        within = estimate(structure.within_part(G), k=0)
        row |= {"within_nodes": within.nodes, "within_weights": within.weights, "loss": np.array(G.loss)}
        gram = structure.gram()
        row |= {f"{part}_part": gram.eigenvalues(part).cpu().numpy() for part in SPANNED_PARTS}
        row["own_share"] = (gram.weights.diagonal() / gram.weights.sum(dim=1)).cpu().numpy()
        rows.append(row)
    arrays = {name: stacked([row[name] for row in rows]) for name in rows[0]}
    return arrays | {"epochs": np.array(chosen), "gauss_newton_dim": arrays["gauss_newton_dim"][0]}


def spread_epochs(run: TrainedRun, count: int | None) -> list[int]:
    """At most `count` of the run's checkpoints, evenly spread over those kept, the first and the last among them.

    Raises:
        ValueError: the run has no checkpoints.
    """
    kept = run.epochs
    if not kept:
        raise ValueError(f"{run.cell} has no checkpoints, and this measurement follows a network over its training")
    if count is None:
        return kept
    return [kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, count).round().astype(int))]


def stacked(rows: list[np.ndarray]) -> np.ndarray:
    """Rows of one shape but for the last axis, as one array; zeros (False) where a Lanczos run ended early."""
    if rows[0].ndim == 0:
        return np.array(rows)
    table = np.zeros((len(rows), *rows[0].shape[:-1], max(row.shape[-1] for row in rows)), dtype=rows[0].dtype)
    for line, row in zip(table, rows):
        line[..., : row.shape[-1]] = row
    return table
