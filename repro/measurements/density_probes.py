"""The training Hessian from several probes: by FastLanczos alone, and with its outliers taken exactly (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from repro.curvature.hessian import Hessian
from repro.linalg.density import quadrature
from repro.measurements.settings import LanczosSettings, check_count
from repro.watch import current

if TYPE_CHECKING:
    from repro.network import Network


ANY_LOSS = True
VERSION = 2


@dataclass
class Settings(LanczosSettings):
    """The probes, and how many eigenpairs are taken out in the second way."""

    steps: int | None = 32  # Lanczos steps of each probe (ours); None: 128, or 2 C where that is more
    probes: int = 5  # starting vectors, each an estimate of its own (the paper takes 1, and 10 in Figure 15)
    tolerance: float = 1e-2  # relative residual at which an eigenpair counts as converged (ours)
    outliers: int | None = None  # eigenpairs taken out in the second way, k; None: C

    def __post_init__(self) -> None:
        check_count("outliers", self.outliers, least=0)


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """Quadratures of Hess on training data, one row per probe.

    Returns:
        plain_nodes, plain_weights [probes, M]: of FastLanczos (Algorithm 2), nothing deflated.
        deflated_nodes, _weights [probes, M], _eigenvalues, _residuals, _converged, _deflated [k], _dim: see `spectrum`.
    """
    memory = settings.memory(network, outliers=settings.outliers, matrix="Hess")
    settings.plan(network, 2, memory)
    hessian = network.matrix(Hessian, memory_budget=memory.graphs)
    found = settings.estimate(hessian, outliers=settings.outliers, classes=network.classes, memory=memory)
    watch = current()
    arrays = watch.found
    arrays |= found.arrays("deflated")

    def plain() -> dict[str, np.ndarray]:
        nodes, weights = quadrature(watch.over(hessian), found.steps, settings.probes, settings.seed)
        return {"plain_nodes": nodes, "plain_weights": weights}

    arrays |= watch.once(plain)
    return arrays
