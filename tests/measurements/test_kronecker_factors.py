"""KFAC, CFAC and EKFAC of each layer of a tiny network against dense matrices."""

import numpy as np
import pytest
import torch
from dense import eigenvalues
from torch import nn

from repro.curvature.layers import LayerStream, capture
from repro.measurements import kronecker_factors
from repro.network import Network

C, N = 3, 12
KRONECKER = {"steps": 30, "tolerance": 1e-6, "epsilon": 1e-6}


def inputs(network):
    return tuple(torch.cat(parts) for parts in zip(*network.batches()))


def kronecker(layered, **settings):
    return kronecker_factors.measure(layered, kronecker_factors.Settings(**KRONECKER | settings))


def dense_layer(layered, name):
    x, _ = inputs(layered)
    seen = capture(layered.model, x, [name], bias=True)
    g = torch.einsum("bc,bcto,btd->bcod", (seen.p / N).sqrt(), seen.delta[name], seen.h[name]).flatten(2).flatten(0, 1)
    return g.T @ g


def test_kronecker_factors_of_each_layer(layered):
    arrays = kronecker(layered)
    for l, name in enumerate(arrays["layers"]):
        exact = eigenvalues(dense_layer(layered, name))
        np.testing.assert_allclose(arrays[f"layer{l}_exact_nodes"][0], exact, atol=1e-12)
        np.testing.assert_allclose(arrays[f"layer{l}_exact_eigenvalues"], exact[:C], atol=1e-12)
        products = np.outer(arrays[f"layer{l}_errors"], arrays[f"layer{l}_features"]).ravel()
        np.testing.assert_allclose(arrays[f"layer{l}_kfac_nodes"][0], np.sort(products)[::-1], atol=1e-12)
        top = arrays[f"layer{l}_kfac_eigenvalues"]
        np.testing.assert_allclose(arrays["top_errors"][l, 0], top / exact[:C] - 1, rtol=1e-6)
    np.testing.assert_allclose(arrays["resolution"], 0, atol=1e-9)  # nothing was estimated
    assert (arrays["wasserstein"] > 0).all()
    assert arrays["class_cosines"].shape == (3, C)


def one_example(model):
    return Network(model, (torch.randn(1, 4, dtype=torch.float64), torch.tensor([0])))


def test_approximations_are_exact_for_one_example():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, C)).double().eval()
    run = one_example(model)
    arrays = kronecker(run, outliers=C - 1)
    np.testing.assert_allclose(arrays["wasserstein"], 0, atol=1e-6)
    np.testing.assert_allclose(arrays["top_errors"], 0, atol=1e-9)


def test_a_matrix_of_low_rank_has_fewer_leading_eigenvalues():
    """One example: G^l has rank C − 1, and Lanczos ends there."""
    torch.manual_seed(0)
    run = one_example(nn.Sequential(nn.Linear(4, C)).double().eval())
    arrays = kronecker(run, outliers=5, exact_limit=0)
    assert np.isfinite(arrays["top_errors"][0, 1, : C - 1]).all()
    assert np.isnan(arrays["top_errors"][0, 1, C:]).all()


@pytest.mark.parametrize("network", ["layered", "convolution"])
def test_lanczos_and_streaming_agree_with_what_is_exact(network, request):
    """Nothing diagonalised and no samples kept: G^l comes from the whole network."""
    run = request.getfixturevalue(network)
    exact = kronecker(run)
    lanczos = kronecker(run, exact_limit=0, memory_bytes=1e6, layers=[0, -1])
    assert list(lanczos["positions"]) == [0, len(exact["layers"]) - 1]
    stream = LayerStream(run.model, run.batches("train"), "0")
    samples, G = kronecker_factors.layer_matrix(stream, keep=False, graphs=0)
    assert not isinstance(samples, list)
    for l in lanczos["positions"]:
        for name in ("exact", "kfac", "cfac", "ekfac"):
            key = f"layer{l}_{name}_eigenvalues"
            np.testing.assert_allclose(lanczos[key], exact[key], rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(eigenvalues(G.dense()), exact["layer0_exact_nodes"][0], atol=1e-12)
