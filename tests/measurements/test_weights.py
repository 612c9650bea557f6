"""Singular values of weights and their class part, prescribed and of a tiny network."""

import numpy as np
import pytest
import torch
from torch import nn

from repro.curvature.moments import WeightMoments
from repro.measurements import weights
from repro.network import Network

C = 3


def inputs(network):
    return tuple(torch.cat(parts) for parts in zip(*network.batches()))


def test_weights_that_are_stationary(layered):
    """W = −∇L/η with classes of one example each: W is W_class, and both knockouts leave nothing."""
    torch.manual_seed(0)
    errors, features = torch.randn(C, 5, dtype=torch.float64), torch.randn(C, 8, dtype=torch.float64)
    shares = torch.full((C,), 1 / C, dtype=torch.float64)
    moments = WeightMoments(errors.T @ features / C, errors, features, shares)
    spectra, curve = weights.describe(-moments.gradient / 0.01, moments, 0.01)
    torch.testing.assert_close(spectra["class"], spectra["singular"][:C])
    for knockout in ("subtracted", "scaled", "projected"):
        assert spectra[knockout].abs().max() < 1e-10
    assert curve["stationarity"] == pytest.approx(0, abs=1e-12)
    for name in ("class_cosine", "gradient_cosine", "scale", "left_overlap", "right_overlap"):
        assert curve[name] == pytest.approx(1)


@pytest.mark.parametrize("network", ["layered", "convolution"])
def test_weights_of_each_layer(network, request):
    run = request.getfixturevalue(network)
    arrays = weights.measure(run, weights.Settings())
    x, y = inputs(run)
    run.model.zero_grad()
    nn.functional.cross_entropy(run.model(x), y).backward()
    for l, name in enumerate(arrays["layers"]):
        W = run.model.get_submodule(name).weight
        np.testing.assert_allclose(arrays[f"layer{l}_singular"], torch.linalg.svdvals(W.detach().flatten(1)))
        residual = (W + W.grad / run.weight_decay).detach().norm() / W.detach().norm()
        assert arrays["stationarity"][l] == pytest.approx(residual.item())


def test_weights_without_decay_are_refused(layered):
    without = Network(layered.model, layered.batches())
    with pytest.raises(ValueError, match="trained without weight decay"):
        weights.measure(without, weights.Settings())
