"""Spectra of a tiny network against the eigenvalues of dense matrices; the several-probe measurement on the same."""

import numpy as np
import pytest
import torch
from torch import nn

from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian
from repro.measurements import density_probes, hessian_spectrum
from repro.network import Network

SETTINGS = {"steps": 30, "probes": 1, "tolerance": 1e-6}


@pytest.fixture(scope="module")
def run():
    """A network with training and test data."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double().eval()
    batches = {
        split: [(torch.randn(n, 4, dtype=torch.float64, generator=generator), torch.arange(n) % 3)]
        for split, n in (("train", 12), ("test", 9))
    }
    return Network(model, batches["train"], batches["test"])


def dense(operator, run, split):
    return operator(run.model, run.batches(split)).dense().numpy()


def by_magnitude(values):
    return values[np.argsort(-np.abs(values))]


def assert_mean(samples, expected):
    """The mean of independent probes within three and a half of its standard errors."""
    assert abs(samples.mean() - expected) < 3.5 * samples.std(ddof=1) / np.sqrt(len(samples))


@pytest.mark.parametrize("split", ["train", "test"])
def test_leading_eigenvalues_and_moments_of_each_matrix(run, split):
    spectra = [f"{split}_{matrix}" for matrix in ("hessian", "gauss_newton", "residual")]
    arrays = hessian_spectrum.measure(
        run, hessian_spectrum.Settings(spectra=spectra, outliers=None, **SETTINGS | {"probes": 40})
    )
    H, G = dense(Hessian, run, split), dense(GaussNewton, run, split)
    for name, matrix in zip(spectra, (H, G, H - G)):
        assert arrays[f"{name}_converged"].all()
        expected = by_magnitude(np.linalg.eigvalsh(matrix))[:3]
        np.testing.assert_allclose(by_magnitude(arrays[f"{name}_eigenvalues"]), expected, rtol=1e-6)
        nodes, weights = arrays[f"{name}_nodes"], arrays[f"{name}_weights"]
        assert nodes.shape == weights.shape == (40, 30)
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
        assert_mean((nodes**2 * weights).sum(axis=1), (matrix**2).sum() / len(matrix))
        assert arrays[f"{name}_dim"] == len(matrix)


def test_train_and_test_are_not_the_same(run):
    arrays = hessian_spectrum.measure(
        run, hessian_spectrum.Settings(spectra=["train_hessian", "test_hessian"], outliers=2, **SETTINGS)
    )
    assert len(arrays["train_hessian_eigenvalues"]) == 2
    assert not np.allclose(arrays["train_hessian_eigenvalues"], arrays["test_hessian_eigenvalues"])


@pytest.mark.parametrize("name", ["hessian", "validation_hessian", "train_fisher"])
def test_an_unknown_spectrum_is_refused(run, name):
    with pytest.raises(ValueError, match=f"'{name}' is not <train or test>_<hessian, gauss_newton, residual>"):
        hessian_spectrum.measure(run, hessian_spectrum.Settings(spectra=[name], outliers=2, **SETTINGS))


def test_several_probes_estimate_the_same_spectrum_both_ways(run):
    arrays = density_probes.measure(run, density_probes.Settings(outliers=None, **SETTINGS | {"probes": 40}))
    H = dense(Hessian, run, "train")
    for way in ("plain", "deflated"):
        nodes, weights = arrays[f"{way}_nodes"], arrays[f"{way}_weights"]
        assert len(nodes) == 40
        assert_mean((nodes * weights).sum(axis=1), np.trace(H) / len(H))
    np.testing.assert_allclose(
        by_magnitude(arrays["deflated_eigenvalues"]), by_magnitude(np.linalg.eigvalsh(H))[:3], rtol=1e-6
    )
