"""Spectra over the checkpoints of a tiny network."""

import copy

import numpy as np
import torch
from dense import dense_parts, eigenvalues

import repro
from repro.measurements import dynamics
from repro.network import Network

C = 4
LANCZOS = {"steps": 74, "probes": 2, "tolerance": 1e-6}


def test_dynamics_follows_the_checkpoints(tiny):
    arrays = dynamics.measure(tiny, dynamics.Settings(epochs=None, **LANCZOS))
    assert arrays["epochs"].tolist() == [0, 1]
    assert arrays["loss"][1] < arrays["loss"][0]
    assert (arrays["own_share"][1] > arrays["own_share"][0]).all()
    _, parts = dense_parts(tiny)
    np.testing.assert_allclose(arrays["class_part"][1], eigenvalues(parts["class"])[:C], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(arrays["within_nodes"][1].max(), eigenvalues(parts["within"])[0], rtol=1e-6)
    assert dynamics.measure(tiny, dynamics.Settings(epochs=1, **LANCZOS))["epochs"].tolist() == [0]


def test_what_was_found_shows_the_last_epoch(tiny):
    found = repro.measure("dynamics", tiny, progress=False, **LANCZOS)
    np.testing.assert_array_equal(found.outliers("gauss_newton"), found.arrays["gauss_newton_eigenvalues"][1])
    assert f"{C} leading eigenvalues converged" in repr(found)
    assert set(found.frame()["spectrum"]) == {"gauss_newton"}


def test_dynamics_fills_up_runs_that_end_early(tiny):
    """A network that is certain of everything has G = 0: Lanczos ends after a step, the arrays keep one shape."""
    certain = copy.deepcopy(tiny.model)
    with torch.no_grad():
        certain[-1].weight *= 0
        certain[-1].bias.copy_(torch.tensor([1e4, 0.0, 0.0, 0.0]))
    saturated = Network(tiny.model, tiny.batches(), checkpoints={0: certain, 1: tiny.model}, batch_size=10)
    arrays = dynamics.measure(saturated, dynamics.Settings(epochs=None, **LANCZOS))
    assert arrays["gauss_newton_eigenvalues"].shape == (2, C)
    assert all(np.isfinite(values).all() for values in arrays.values())
