"""Spectra of two synthetic matrices, estimated and exact: the check of the algorithms in Figure 15 (Appendix C)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from repro.linalg.density import Density, lanczos_approx_spec, log_spectrum
from repro.linalg.operator import Dense


def measure(
    *,
    spikes: Sequence[float],
    spiked_dim: int,
    spiked_steps: int,
    heavy_dim: int,
    heavy_samples: int,
    heavy_steps: int,
    epsilon: float,
    probes: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Algorithm 3 on a spiked Wishart matrix, the log spectrum on a heavy-tailed one, and their exact eigenvalues.

    Spiked: diag(spikes, 0, ...) + Z Z^T / D, Z [D, D] normal. Heavy: Z Z^T / S, Z [D, S] Pareto of index 1.

    Args:
        spikes: leading diagonal entries of the first matrix.
        spiked_dim, heavy_dim: D of either matrix.
        heavy_samples: S.
        spiked_steps, heavy_steps: Lanczos steps M.
        epsilon: of the log spectrum; its smallest eigenvalue told from zero.
        probes: starting vectors of each estimate.
        seed: of the matrices and the probes.

    Returns, for <m> of spiked and heavy:
        <m>_nodes, <m>_weights [probes, M]: Gauss quadrature from Lanczos without reorthogonalisation.
        <m>_limits [2]: ends of the range in which the curve is drawn, eigenvalue (plus epsilon where heavy).
        <m>_exact [D]: all eigenvalues, ascending.
    """
    generator = torch.Generator().manual_seed(seed)
    Z = torch.randn(spiked_dim, spiked_dim, dtype=torch.float64, generator=generator)
    spiked = Z @ Z.T / spiked_dim
    spiked.diagonal()[: len(spikes)] += torch.tensor(spikes, dtype=torch.float64)
    uniform = torch.rand(heavy_dim, heavy_samples, dtype=torch.float64, generator=generator)
    Z = 1 / (1 - uniform)  # Pareto of index 1 and minimum 1, from its quantile function
    heavy = Z @ Z.T / heavy_samples
    # Single precision halves the time and is what networks have; the heavy tail spans too many decades for it.
    spiked_density = lanczos_approx_spec(Dense(spiked.float()), steps=spiked_steps, probes=probes, seed=seed)
    heavy_density = log_spectrum(Dense(heavy), steps=heavy_steps, probes=probes, epsilon=epsilon, seed=seed)
    return _arrays("spiked", spiked, spiked_density) | _arrays("heavy", heavy, heavy_density)


def _arrays(prefix: str, matrix: Tensor, density: Density) -> dict[str, np.ndarray]:
    return {
        f"{prefix}_nodes": density.nodes,
        f"{prefix}_weights": density.weights,
        f"{prefix}_limits": density.curve.x[[0, -1]],
        f"{prefix}_exact": torch.linalg.eigvalsh(matrix).numpy(),
    }
