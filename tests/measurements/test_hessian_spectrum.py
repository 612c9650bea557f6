"""Spectra of a tiny network against the eigenvalues of dense matrices."""

import numpy as np
import pytest
from dense import assert_mean, by_magnitude

from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian
from repro.measurements import hessian_spectrum

SETTINGS = {"steps": 30, "tolerance": 1e-6}


def dense(operator, network, split):
    return operator(network.model, network.batches(split)).dense().numpy()


@pytest.mark.parametrize("split", ["train", "test"])
def test_leading_eigenvalues_and_moments_of_each_matrix(tiny, split):
    spectra = [f"{split}_{matrix}" for matrix in ("hessian", "gauss_newton", "residual")]
    settings = hessian_spectrum.Settings(spectra=spectra, steps=50, probes=40, tolerance=1e-6, seed=1)
    arrays = hessian_spectrum.measure(tiny, settings)
    H, G = dense(Hessian, tiny, split), dense(GaussNewton, tiny, split)
    for name, matrix in zip(spectra, (H, G, H - G)):
        assert arrays[f"{name}_converged"].all()
        expected = by_magnitude(np.linalg.eigvalsh(matrix))[:4]
        np.testing.assert_allclose(by_magnitude(arrays[f"{name}_eigenvalues"]), expected, rtol=1e-6)
        nodes, weights = arrays[f"{name}_nodes"], arrays[f"{name}_weights"]
        assert nodes.shape == weights.shape == (40, 50)
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
        assert_mean((nodes**2 * weights).sum(axis=1), (matrix**2).sum() / len(matrix))
        assert arrays[f"{name}_dim"] == len(matrix)


def test_train_and_test_are_not_the_same(tiny):
    arrays = hessian_spectrum.measure(
        tiny, hessian_spectrum.Settings(spectra=["train_hessian", "test_hessian"], outliers=2, **SETTINGS)
    )
    assert len(arrays["train_hessian_eigenvalues"]) == 2
    assert not np.allclose(arrays["train_hessian_eigenvalues"], arrays["test_hessian_eigenvalues"])


@pytest.mark.parametrize("name", ["hessian", "validation_hessian", "train_fisher"])
def test_an_unknown_spectrum_is_refused(tiny, name):
    with pytest.raises(ValueError, match=f"'{name}' is not <train or test>_<hessian, gauss_newton, residual>"):
        hessian_spectrum.measure(tiny, hessian_spectrum.Settings(spectra=[name], outliers=2, **SETTINGS))


def test_test_spectra_of_the_first_examples_of_each_class(tiny):
    some = hessian_spectrum.measure(
        tiny, hessian_spectrum.Settings(spectra=["test_hessian"], test_per_class=1, **SETTINGS)
    )
    assert some["test_examples"] == 4
    x, y = tiny.test.inputs, tiny.test.labels
    first = [int((y == c).nonzero()[0]) for c in range(4)]
    expected = np.linalg.eigvalsh(Hessian(tiny.model, [(x[first], y[first])]).dense().numpy())
    np.testing.assert_allclose(some["test_hessian_eigenvalues"], by_magnitude(expected)[:4], rtol=1e-6)
