"""Section 8's measurement: samples approach the theorem, and the ratios behave as it says."""

import numpy as np

from repro.measurements.logistic_regression import Settings, measure


def test_samples_approach_the_theorem():
    arrays = measure(Settings(classes=3, features=4, examples=30_000, snr=4.0, snrs=[1.0, 9.0]))
    theorem = np.repeat(arrays["levels"], arrays["multiplicities"])
    np.testing.assert_allclose(arrays["expected_eigenvalues"], theorem, atol=1e-12)
    np.testing.assert_allclose(arrays["constant_eigenvalues"], theorem, atol=0.03 * theorem.max())
    assert len(arrays["softmax_eigenvalues"]) == 12
    assert np.abs(arrays["softmax_eigenvalues"][-4:]).max() < 1e-12  # D zeros: shifting all logits changes nothing
    np.testing.assert_allclose(arrays["error_rate"], arrays["bayes_error"], atol=0.01)
    assert arrays["bayes_error"][1] < arrays["bayes_error"][0]
    for ratio in ("outlier_ratio", "minibulk_ratio", "softmax_outlier_ratio"):
        assert arrays[ratio][1] > arrays[ratio][0] > 1


def test_the_same_seed_gives_the_same_arrays():
    settings = {"classes": 3, "features": 4, "examples": 300, "snr": 1.0, "snrs": [1.0]}
    first, again, other = (measure(Settings(**settings, seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["softmax_eigenvalues"], again["softmax_eigenvalues"])
    assert not np.array_equal(first["softmax_eigenvalues"], other["softmax_eigenvalues"])
