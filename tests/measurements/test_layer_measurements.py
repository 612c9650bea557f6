"""Measurements of single layers on a tiny network, against dense matrices and prescribed structure."""

import numpy as np
import pytest
import torch
from torch import nn

from repro.curvature.layers import capture
from repro.curvature.moments import FeatureMoments, WeightMoments
from repro.measurements import kronecker_factors, layer_errors, layer_features, weights
from repro.network import Network

C, N, D = 3, 12, 6
KRONECKER = {"steps": 30, "tolerance": 1e-6, "epsilon": 1e-6}


def run_of(model, x):
    return Network(model, (x, torch.arange(len(x)) % C), weight_decay=5e-4, batch_size=7)


def kronecker(run, **settings):
    return kronecker_factors.measure(run, kronecker_factors.Settings(**KRONECKER | settings))


@pytest.fixture(scope="module")
def run():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 7, bias=False), nn.ReLU(), nn.Linear(7, C)
        )
        return run_of(model.double().eval(), torch.randn(N, D, dtype=torch.float64))


@pytest.fixture(scope="module")
def convolution():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, C))
        return run_of(model.double().eval(), torch.randn(N, 1, 3, 3, dtype=torch.float64))


def inputs(run):
    return torch.cat([x for x, _ in run.batches("train")]), torch.cat([y for _, y in run.batches("train")])


def spectrum_of(A):
    return torch.linalg.eigvalsh(A).flip(0).numpy()


def test_features_of_each_layer_and_of_the_logits(run):
    arrays = layer_features.measure(run, layer_features.Settings())
    assert list(arrays["layers"]) == ["0", "3", "5", "logits"]
    x, y = inputs(run)
    h = capture(run.model, x, ["3"], bias=False, errors=False).h["3"][:, 0]
    means = torch.stack([h[y == c].mean(0) for c in range(C)])
    within = h - means[y]
    np.testing.assert_allclose(arrays["layer1_eigenvalues"], spectrum_of(h.T @ h / N), atol=1e-12)
    np.testing.assert_allclose(arrays["layer1_class"], spectrum_of(means @ means.T / C), atol=1e-12)
    np.testing.assert_allclose(arrays["layer1_without_class"], spectrum_of(within.T @ within / N), atol=1e-12)
    centred = h - h.mean(0)
    np.testing.assert_allclose(arrays["layer1_without_global"], spectrum_of(centred.T @ centred / N), atol=1e-12)
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


def test_errors_of_each_layer(run):
    arrays = layer_errors.measure(run, layer_errors.Settings())
    assert list(arrays["layers"]) == ["0", "3", "5"]
    x, _ = inputs(run)
    seen = capture(run.model, x, ["3"], bias=False)
    delta = (seen.p / N).sqrt()[..., None] * seen.delta["3"][:, :, 0]
    Delta = delta.flatten(0, 1).T @ delta.flatten(0, 1)
    np.testing.assert_allclose(arrays["layer1_eigenvalues"], spectrum_of(Delta), atol=1e-12)
    np.testing.assert_allclose(arrays["shares"].sum(axis=1), 1)
    parts = [arrays[f"layer1_{part}"].sum() for part in ("class", "cross", "within", "same")]
    assert sum(parts) == pytest.approx(float(Delta.trace()))
    assert arrays["layer1_without_class"].sum() == pytest.approx(float(Delta.trace()) - parts[0])
    assert arrays["layer2_class"][C - 1] < 1e-12  # rank C − 1 at the logits
    assert arrays["class_overlap"][2] == pytest.approx(1)  # two dimensions hold both


def dense_layer(run, name):
    x, _ = inputs(run)
    seen = capture(run.model, x, [name], bias=True)
    g = torch.einsum("bc,bcto,btd->bcod", (seen.p / N).sqrt(), seen.delta[name], seen.h[name]).flatten(2).flatten(0, 1)
    return g.T @ g


def test_kronecker_factors_of_each_layer(run):
    arrays = kronecker(run)
    for l, name in enumerate(arrays["layers"]):
        exact = spectrum_of(dense_layer(run, name))
        np.testing.assert_allclose(arrays[f"layer{l}_exact_nodes"][0], exact, atol=1e-12)
        np.testing.assert_allclose(arrays[f"layer{l}_exact_eigenvalues"], exact[:C], atol=1e-12)
        products = np.outer(arrays[f"layer{l}_errors"], arrays[f"layer{l}_features"]).ravel()
        np.testing.assert_allclose(arrays[f"layer{l}_kfac_nodes"][0], np.sort(products)[::-1], atol=1e-12)
        top = arrays[f"layer{l}_kfac_eigenvalues"]
        np.testing.assert_allclose(arrays["top_errors"][l, 0], top / exact[:C] - 1, rtol=1e-6)
    np.testing.assert_allclose(arrays["resolution"], 0, atol=1e-9)  # nothing was estimated
    assert (arrays["wasserstein"] > 0).all()
    assert arrays["class_cosines"].shape == (3, C)


def test_approximations_are_exact_for_one_example():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, C)).double().eval()
    run = run_of(model, torch.randn(1, 4, dtype=torch.float64))
    arrays = kronecker(run, outliers=C - 1)
    np.testing.assert_allclose(arrays["wasserstein"], 0, atol=1e-6)
    np.testing.assert_allclose(arrays["top_errors"], 0, atol=1e-9)


def test_a_matrix_of_low_rank_has_fewer_leading_eigenvalues():
    """One example: G^l has rank C − 1, and Lanczos ends there."""
    torch.manual_seed(0)
    run = run_of(nn.Sequential(nn.Linear(4, C)).double().eval(), torch.randn(1, 4, dtype=torch.float64))
    arrays = kronecker(run, outliers=5, exact_limit=0)
    assert np.isfinite(arrays["top_errors"][0, 1, : C - 1]).all()
    assert np.isnan(arrays["top_errors"][0, 1, C:]).all()


@pytest.mark.parametrize("network", ["run", "convolution"])
def test_lanczos_and_streaming_agree_with_what_is_exact(network, request):
    """Nothing diagonalised and no samples kept: G^l comes from the whole network."""
    run = request.getfixturevalue(network)
    exact = kronecker(run)
    lanczos = kronecker(run, exact_limit=0, basis_bytes=1e6, layers=[0, -1])
    assert list(lanczos["positions"]) == [0, len(exact["layers"]) - 1]
    nothing_kept = kronecker_factors.Settings(samples_bytes=0)
    samples, _ = kronecker_factors.layer_matrix(run.model, run.batches("train"), "0", nothing_kept)
    assert not isinstance(samples, list)
    for l in lanczos["positions"]:
        for name in ("exact", "kfac", "cfac", "ekfac"):
            key = f"layer{l}_{name}_eigenvalues"
            np.testing.assert_allclose(lanczos[key], exact[key], rtol=1e-5, atol=1e-12)
    _, G = kronecker_factors.layer_matrix(run.model, run.batches("train"), "0", nothing_kept)
    np.testing.assert_allclose(spectrum_of(G.dense()), exact["layer0_exact_nodes"][0], atol=1e-12)


def test_weights_that_are_stationary(run):
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


@pytest.mark.parametrize("network", ["run", "convolution"])
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


def test_weights_without_decay_are_refused(run):
    without = Network(run.model, run.batches())
    with pytest.raises(ValueError, match="trained without weight decay"):
        weights.measure(without, weights.Settings())
