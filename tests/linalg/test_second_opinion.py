"""The paper's algorithms against curvlinops' implementation of them, on the same Lanczos run."""

import numpy as np
import pytest
import torch

from repro.linalg.lanczos import fast_lanczos
from repro.linalg.operator import Dense
from repro.spectra.broadening import linear_curve, log_curve

curvlinops = pytest.importorskip("curvlinops.papyan2020traces.spectrum")
P, M = 60, 20


@pytest.fixture
def runs():
    """The same matrix and starting vector for both: theirs comes from the global random state."""
    A = torch.randn(P, P, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    A = A + A.T
    torch.manual_seed(1)
    theirs = curvlinops.fast_lanczos(A, M)
    torch.manual_seed(1)
    start = torch.randn(P, dtype=torch.float64)
    return A, fast_lanczos(Dense(A), M, start=start), theirs


def test_fast_lanczos(runs):
    _, ours, (values, vectors) = runs
    torch.testing.assert_close(ours.values, values, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.weights, vectors[0] ** 2, rtol=1e-8, atol=1e-12)


def test_linear_density(runs):
    A, ours, theirs = runs
    low, high = torch.linalg.eigvalsh(A)[[0, -1]].tolist()
    grid, density = curvlinops.lanczos_approximate_spectrum_from_iter(theirs, (low, high), 500, 3.0, 0.05)
    room = 0.05 * (high - low)
    curve = linear_curve(ours.values, ours.weights, kappa=3.0, points=500, limits=(low - room, high + room))
    np.testing.assert_allclose(curve.x, grid, rtol=1e-12)
    np.testing.assert_allclose(curve.density, density, rtol=1e-6, atol=1e-12)


def test_log_density(runs):
    A, ours, theirs = runs
    low, high, epsilon = 0.0, float(torch.linalg.eigvalsh(A).abs().max()), 1e-2
    grid, density = curvlinops.lanczos_approximate_log_spectrum_from_iter(theirs, (low, high), 500, 1.25, 0.05, epsilon)
    curve = log_curve(
        ours.values, ours.weights, epsilon=epsilon, kappa=1.25, points=500, limits=(float(grid[0]), float(grid[-1]))
    )
    np.testing.assert_allclose(curve.x, grid, rtol=1e-10)
    np.testing.assert_allclose(curve.density, density, rtol=1e-6, atol=1e-12)
