"""The synthetic checks: exact spectra follow random matrix theory, the estimates follow the exact spectra."""

import numpy as np

from repro.measurements.synthetic_spectra import Settings, measure
from repro.spectra.broadening import wasserstein


def small(seed=0):
    settings = Settings(
        spikes=[5.0, 4.0, 3.0],
        spiked_dim=600,
        spiked_steps=100,
        heavy_dim=100,
        heavy_samples=200,
        heavy_steps=100,
        epsilon=1e-5,
        probes=4,
        seed=seed,
    )
    return measure(settings)


def test_spikes_and_bulk():
    arrays = small()
    exact = arrays["spiked_exact"]
    assert exact.shape == (600,)
    expected = [theta + theta / (theta - 1) for theta in (3, 4, 5)]  # a spike theta on a square Wishart matrix
    np.testing.assert_allclose(exact[-3:], expected, rtol=0.08)
    assert exact[-4] < 4.2  # edge of the bulk: 4
    low, high = arrays["spiked_limits"]
    assert low < exact[0]
    assert exact[-1] < high
    assert arrays["spiked_nodes"].shape == arrays["spiked_weights"].shape == (4, 100)
    distance = wasserstein(arrays["spiked_nodes"], arrays["spiked_weights"], exact)
    assert distance < 0.03 * exact.mean()


def test_heavy_tail():
    arrays = small()
    exact = arrays["heavy_exact"]
    assert exact.shape == (100,)
    assert exact[-1] / exact[0] > 1e3
    assert np.log(arrays["heavy_limits"][0]) < np.log(1e-5)
    assert wasserstein(arrays["heavy_nodes"], arrays["heavy_weights"], exact, epsilon=1e-5) < 0.3
    assert not np.array_equal(small(seed=1)["heavy_exact"], exact)
