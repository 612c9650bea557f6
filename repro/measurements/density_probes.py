"""The training Hessian from several probes: by FastLanczos alone, and with its outliers taken exactly (ours)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repro.curvature.hessian import Hessian
from repro.linalg.density import quadrature
from repro.linalg.spectrum import spectrum

if TYPE_CHECKING:
    from repro.trained import TrainedRun


def measure(
    run: TrainedRun,
    *,
    probes: int,
    steps: int,
    outliers: int | None,
    tolerance: float,
    memory_budget: float,
    seed: int,
) -> dict[str, np.ndarray]:
    """Quadratures of Hess on training data, a row a probe.

    Args:
        probes, steps, seed: of either way.
        outliers: eigenpairs, k below; None for C.
        tolerance, memory_budget: see `repro.linalg.spectrum.spectrum`.

    Returns:
        plain_nodes, plain_weights [probes, M]: of FastLanczos (Algorithm 2), nothing deflated.
        deflated_nodes, _weights [probes, M], _eigenvalues, _residuals, _converged [k], _dim: see `spectrum`.
    """
    hessian = Hessian(run.model, run.batches())
    nodes, weights = quadrature(hessian, steps, probes, seed)
    found = spectrum(
        hessian,
        k=run.train.classes if outliers is None else outliers,
        steps=steps,
        probes=probes,
        tolerance=tolerance,
        memory_budget=int(memory_budget),
        seed=seed,
    )
    return {"plain_nodes": nodes, "plain_weights": weights} | found.arrays("deflated")
