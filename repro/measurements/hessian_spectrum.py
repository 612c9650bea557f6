"""Spectra of Hess, G and E = Hess − G on training and test data: top C eigenpairs and quadrature (Sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian, HessianResidual
from repro.linalg.spectrum import spectrum

if TYPE_CHECKING:
    from repro.trained import TrainedRun

MATRICES = {"hessian": Hessian, "gauss_newton": GaussNewton, "residual": HessianResidual}


def measure(
    run: TrainedRun,
    *,
    spectra: Sequence[str],
    outliers: int | None,
    steps: int,
    probes: int,
    tolerance: float,
    memory_budget: float,
    seed: int,
) -> dict[str, np.ndarray]:
    """Leading eigenpairs (by magnitude) and Gauss quadrature of each of `spectra`, from the same Lanczos runs.

    Args:
        spectra: `<split>_<matrix>` each, of train, test and hessian, gauss_newton, residual.
        outliers: eigenpairs, k below; None for C.
        steps, probes, tolerance, memory_budget (bytes), seed: see `repro.linalg.spectrum.spectrum`.

    Returns, for each <s> of `spectra`:
        <s>_nodes, <s>_weights [probes, M]: eigenvalues of the mean loss, and their share of all P eigenvalues.
        <s>_eigenvalues, <s>_residuals (absolute), <s>_converged [k].
        <s>_dim: P.

    Raises:
        ValueError: an entry of `spectra` names no split or matrix.
    """
    arrays: dict[str, np.ndarray] = {}
    for name in spectra:
        split, _, matrix = name.partition("_")
        if split not in ("train", "test") or matrix not in MATRICES:
            raise ValueError(f"spectra: {name!r} is not <train or test>_<{', '.join(MATRICES)}>")
        found = spectrum(
            MATRICES[matrix](run.model, run.batches(split)),
            k=run.train.classes if outliers is None else outliers,
            steps=steps,
            probes=probes,
            tolerance=tolerance,
            memory_budget=int(memory_budget),
            seed=seed,
        )
        arrays |= found.arrays(name)
    return arrays
