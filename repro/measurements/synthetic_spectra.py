"""Spectra of two synthetic matrices, estimated and exact: the check of the algorithms in Figure 15 (Appendix C)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from repro.linalg.density import Density, lanczos_approx_spec, log_spectrum
from repro.linalg.operator import Dense

VERSION = 1


@dataclass
class Settings:
    """The two matrices of Figure 15 and how their spectra are estimated; all certain unless marked."""

    spikes: list[float] = field(default_factory=lambda: [5.0, 4.0, 3.0])  # 15a: leading diagonal entries
    spiked_dim: int = 2000  # D of the first matrix
    spiked_steps: int = 128  # Lanczos steps M on it
    heavy_dim: int = 500  # D of the second; that the Pareto variables of 15b have minimum 1 is a guess
    heavy_samples: int = 1000  # S
    heavy_steps: int = 256  # Lanczos steps M on it
    epsilon: float = 1e-5  # of the log spectrum: its smallest eigenvalue told from zero
    probes: int = 10  # nvec, starting vectors of each estimate
    seed: int = 0  # of the matrices and the probes (ours)


def measure(settings: Settings) -> dict[str, np.ndarray]:
    """Algorithm 3 on a spiked Wishart matrix, the log spectrum on a heavy-tailed one, and their exact eigenvalues.

    Spiked: diag(spikes, 0, ...) + Z Z^T / D, Z [D, D] normal. Heavy: Z Z^T / S, Z [D, S] Pareto of index 1.

    Returns, for <m> of spiked and heavy:
        <m>_nodes, <m>_weights [probes, M]: Gauss quadrature from Lanczos without reorthogonalisation.
        <m>_limits [2]: ends of the range in which the curve is drawn, eigenvalue (plus epsilon where heavy).
        <m>_exact [D]: all eigenvalues, ascending.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    Z = torch.randn(settings.spiked_dim, settings.spiked_dim, dtype=torch.float64, generator=generator)
    spiked = Z @ Z.T / settings.spiked_dim
    spiked.diagonal()[: len(settings.spikes)] += torch.tensor(settings.spikes, dtype=torch.float64)
    uniform = torch.rand(settings.heavy_dim, settings.heavy_samples, dtype=torch.float64, generator=generator)
    Z = 1 / (1 - uniform)  # Pareto of index 1 and minimum 1, from its quantile function
    heavy = Z @ Z.T / settings.heavy_samples
    # Single precision halves the time and is what networks have; the heavy tail spans too many decades for it.
    spiked_density = lanczos_approx_spec(
        Dense(spiked.float()), steps=settings.spiked_steps, probes=settings.probes, seed=settings.seed
    )
    heavy_density = log_spectrum(
        Dense(heavy), steps=settings.heavy_steps, probes=settings.probes, epsilon=settings.epsilon, seed=settings.seed
    )
    return _arrays("spiked", spiked, spiked_density) | _arrays("heavy", heavy, heavy_density)


def _arrays(prefix: str, matrix: Tensor, density: Density) -> dict[str, np.ndarray]:
    return {
        f"{prefix}_nodes": density.nodes,
        f"{prefix}_weights": density.weights,
        f"{prefix}_limits": density.curve.x[[0, -1]],
        f"{prefix}_exact": torch.linalg.eigvalsh(matrix).numpy(),
    }
