"""Second moments of features against dense matrices and prescribed class means."""

import numpy as np
import pytest
import torch
from dense import eigenvalues

from repro.curvature.layers import capture
from repro.curvature.moments import FeatureMoments
from repro.measurements import layer_features

C, N = 3, 12


def inputs(network):
    return tuple(torch.cat(parts) for parts in zip(*network.batches()))


def test_features_of_each_layer_and_of_the_logits(layered):
    arrays = layer_features.measure(layered, layer_features.Settings())
    assert list(arrays["layers"]) == ["0", "3", "5", "logits"]
    x, y = inputs(layered)
    h = capture(layered.model, x, ["3"], bias=False, errors=False).h["3"][:, 0]
    means = torch.stack([h[y == c].mean(0) for c in range(C)])
    within = h - means[y]
    np.testing.assert_allclose(arrays["layer1_eigenvalues"], eigenvalues(h.T @ h / N), atol=1e-12)
    np.testing.assert_allclose(arrays["layer1_class"], eigenvalues(means @ means.T / C), atol=1e-12)
    np.testing.assert_allclose(arrays["layer1_without_class"], eigenvalues(within.T @ within / N), atol=1e-12)
    centred = h - h.mean(0)
    np.testing.assert_allclose(arrays["layer1_without_global"], eigenvalues(centred.T @ centred / N), atol=1e-12)
    assert arrays["cosines"].shape == (4, C, C)
    trace = (h.T @ h / N).trace()
    assert arrays["class_share"][1] == pytest.approx(float(means.square().sum() / C / trace))


def test_features_that_are_their_orthogonal_class_means():
    """Class means e_1, 2 e_2, 3 e_3 and nothing else: outliers are class means, the ratio is the second to third."""
    means = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    shares = torch.full((3,), 1 / 3, dtype=torch.float64)
    spectra, curve = layer_features.describe(FeatureMoments(means.T @ means / 3, means, shares))
    torch.testing.assert_close(spectra["class"], spectra["eigenvalues"])
    assert spectra["without_class"].abs().max() < 1e-12
    assert spectra["projected"].abs().max() < 1e-12
    assert curve["class_ratio"] == pytest.approx(4)
    assert curve["class_overlap"] == pytest.approx(1)
    assert curve["class_share"] == pytest.approx(1)
    assert curve["global_share"] == pytest.approx(9 / 14)  # <e_3, (1, 2, 3)>² / |(1, 2, 3)|²
