"""A run that ends when it has settled: what it finds is what a longer one finds."""

import numpy as np
import pytest
import torch

from repro.linalg.operator import Dense
from repro.linalg.spectrum import LOOK, spectrum
from repro.spectra.broadening import moved

P, OUTLIERS = 400, (30.0, 20.0, -12.0)


@pytest.fixture(scope="module")
def A():
    generator = torch.Generator().manual_seed(0)
    bulk = torch.randn(P - len(OUTLIERS), generator=generator, dtype=torch.float64)
    return Dense(torch.cat([torch.tensor(OUTLIERS, dtype=torch.float64), bulk]).diag())


def test_it_ends_with_the_outliers_and_the_density_of_all_steps(A):
    found, longer = (spectrum(A, k=3, steps=200, probes=2, settled=settled) for settled in (0.01, None))
    assert LOOK < found.steps < 100
    assert found.nodes.shape[0] == 2
    assert found.products < longer.products / 2
    assert found.converged.all()
    np.testing.assert_allclose(found.eigenvalues, OUTLIERS, rtol=1e-6)
    bulk, whole = found.bulk(), longer.bulk()
    assert moved(bulk.nodes[0], bulk.weights[0], whole.nodes[0], whole.weights[0]) < 0.02


def test_the_less_may_move_the_more_steps_it_takes(A):
    steps = [spectrum(A, k=3, steps=200, settled=settled).steps for settled in (0.1, 0.01, 1e-3)]
    assert steps == sorted(set(steps))
    assert all(count % LOOK == 0 for count in steps)


def test_it_does_not_end_before_the_pairs_have_converged(A):
    assert spectrum(A, k=40, steps=60, settled=1.0).steps == 60
    assert spectrum(A, k=0, steps=60, settled=1.0).steps == 2 * LOOK  # nothing to wait for but a second look
