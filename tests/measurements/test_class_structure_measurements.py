"""Knockouts, dynamics, class means and alignment of a tiny trained network, against its dense matrices."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from repro.curvature.cross_class import class_structure, companion_structure
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian
from repro.measurements import alignment, class_means, dynamics, gauss_newton_knockouts
from repro.network import Network
from repro.spectra.broadening import wasserstein

C, D, N = 4, 6, 24
LANCZOS = {"steps": 74, "probes": 2, "tolerance": 1e-6}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, C)).double().eval()


@pytest.fixture(scope="module")
def run():
    """Initial and trained weights as epochs 0 and 1."""
    with torch.random.fork_rng():
        y = torch.arange(N) % C
        x = torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 2 * one_hot(y, D)
        trained = network()
        optimiser = torch.optim.SGD(trained.parameters(), lr=0.3)
        for _ in range(100):
            optimiser.zero_grad()
            cross_entropy(trained(x), y).backward()
            optimiser.step()
        return Network(trained, (x, y), checkpoints={0: network(), 1: trained}, batch_size=10)


def eigenvalues(A):
    return torch.linalg.eigvalsh(A).flip(0).numpy()


def dense_parts(run):
    structure = class_structure(run.model, run.batches())
    G = GaussNewton(run.model, run.batches()).dense()
    parts = {name: structure.part(name).dense() for name in ("class", "cross", "same")}
    return G, parts | {"within": G - sum(parts.values())}


@pytest.mark.parametrize("how", ["subtraction", "projection"])
def test_knockouts_have_the_spectra_of_the_dense_matrices(run, how):
    arrays = gauss_newton_knockouts.measure(
        run, gauss_newton_knockouts.Settings(knockout=how, outliers=None, **LANCZOS)
    )
    G, parts = dense_parts(run)
    for name in ("full", *parts):
        expected = G if name == "full" else G - parts[name]
        if how == "projection" and name in ("class", "cross", "same"):
            B = class_structure(run.model, run.batches()).basis(name)
            away = torch.eye(len(G), dtype=G.dtype) - B @ B.T
            expected = away @ G @ away
        exact = eigenvalues(expected)
        top = exact[np.argsort(-np.abs(exact))][:C]
        assert arrays[f"{name}_converged"].all()
        np.testing.assert_allclose(np.abs(arrays[f"{name}_eigenvalues"]), np.abs(top), rtol=1e-6, atol=1e-10)
        np.testing.assert_allclose(arrays[f"{name}_weights"].sum(axis=1), 1)
        distance = wasserstein(arrays[f"{name}_nodes"], arrays[f"{name}_weights"], exact)
        assert distance < 0.2 * np.abs(exact).mean()  # two random probes; the nodes themselves are exact
    np.testing.assert_allclose(arrays["class_part"], eigenvalues(parts["class"])[:C], rtol=1e-9, atol=1e-14)
    assert len(arrays["cross_part"]) == C * (C - 2)
    assert arrays["mass"].sum() == pytest.approx(1)


def test_without_within_the_spectrum_is_exact(run):
    arrays = gauss_newton_knockouts.measure(
        run, gauss_newton_knockouts.Settings(knockout="subtraction", outliers=2, **LANCZOS)
    )
    G, parts = dense_parts(run)
    exact = eigenvalues(G - parts["within"])
    assert wasserstein(arrays["within_nodes"], arrays["within_weights"], exact) < 1e-12
    assert arrays["within_nodes"].shape[1] == LANCZOS["steps"]  # smoothed like the others
    assert len(arrays["within_eigenvalues"]) == 2


def test_dynamics_follows_the_checkpoints(run):
    arrays = dynamics.measure(run, dynamics.Settings(epochs=None, **LANCZOS))
    assert arrays["epochs"].tolist() == [0, 1]
    assert arrays["loss"][1] < arrays["loss"][0]
    assert (arrays["own_share"][1] > arrays["own_share"][0]).all()
    _, parts = dense_parts(run)
    np.testing.assert_allclose(arrays["class_part"][1], eigenvalues(parts["class"])[:C], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(arrays["within_nodes"][1].max(), eigenvalues(parts["within"])[0], rtol=1e-6)
    assert dynamics.measure(run, dynamics.Settings(epochs=1, **LANCZOS))["epochs"].tolist() == [0]


def test_dynamics_fills_up_runs_that_end_early(run):
    """A network that is certain of everything has G = 0: Lanczos ends after a step, the arrays keep one shape."""
    certain = network()
    with torch.no_grad():
        certain[-1].weight *= 0
        certain[-1].bias.copy_(torch.tensor([1e4, 0.0, 0.0, 0.0]))
    saturated = Network(run.model, run.batches(), checkpoints={0: certain, 1: run.model}, batch_size=10)
    arrays = dynamics.measure(saturated, dynamics.Settings(epochs=None, **LANCZOS))
    assert arrays["gauss_newton_eigenvalues"].shape == (2, C)
    assert all(np.isfinite(values).all() for values in arrays.values())


def test_class_means_do_not_depend_on_the_budget(run):
    arrays = class_means.measure(run, class_means.Settings())
    sliced = class_means.measure(run, class_means.Settings(means_bytes=8 * C * C * 11))
    for name, values in arrays.items():
        np.testing.assert_allclose(sliced[name], values, rtol=1e-9, atol=1e-12, err_msg=name)
    companion = companion_structure(run.model, run.batches())
    np.testing.assert_allclose(
        arrays["companion_class_part"], eigenvalues(companion.class_part.dense())[:C], rtol=1e-8, atol=1e-14
    )
    own = np.arange(C) * (C + 1)  # rows (c, c): the class means
    w = arrays["weights"].sum(axis=1) - np.diag(arrays["weights"])
    gram = np.sqrt(w)[:, None] * arrays["means"][np.ix_(own, own)] * np.sqrt(w)
    np.testing.assert_allclose(np.linalg.eigvalsh(gram)[::-1], arrays["class_part"], rtol=1e-8, atol=1e-14)


def test_class_means_of_many_classes_are_stored_alone(run):
    everything = class_means.measure(run, class_means.Settings())
    arrays = class_means.measure(run, class_means.Settings(stored_means=C**2 - 1))
    own = np.arange(C) * (C + 1)
    for prefix in ("", "companion_"):
        assert f"{prefix}means" not in arrays
        expected = everything[f"{prefix}means"][np.ix_(own, own)]
        np.testing.assert_allclose(arrays[f"{prefix}class_means"], expected, rtol=1e-10, atol=1e-15)


def test_alignment_by_dense_eigenvectors(run):
    arrays = alignment.measure(run, alignment.Settings(eigenvectors=6, tolerance=1e-8, max_products=80))
    G, parts = dense_parts(run)
    for name, A in (("hessian", Hessian(run.model, run.batches()).dense()), ("gauss_newton", G)):
        values, U = (t.flip(-1) for t in torch.linalg.eigh(A))
        np.testing.assert_allclose(arrays[f"{name}_eigenvalues"], values[:6], rtol=1e-8)
        pieces = parts | {"residual": A - G}
        for part, matrix in pieces.items():
            share = ((matrix @ U) * U).sum(0)[:6] / values[:6]
            np.testing.assert_allclose(arrays[f"{name}_share_{part}"], share, atol=1e-6)
        np.testing.assert_allclose(sum(arrays[f"{name}_share_{part}"] for part in pieces), 1, rtol=1e-10)
        onto, _ = torch.linalg.qr(class_structure(run.model, run.batches()).class_part.U)
        np.testing.assert_allclose(arrays[f"{name}_overlap_class"], (onto.T @ U).square().sum(0)[:6], atol=1e-6)
        cosines = torch.linalg.svdvals(onto.T @ U[:, :C])
        np.testing.assert_allclose(arrays[f"{name}_class_cosines"], cosines, atol=1e-6)


def test_principal_cosines_of_known_planes():
    """Planes that share a direction and meet at 60 degrees in the other."""
    A = torch.eye(4, dtype=torch.float64)[:, :2]
    B = torch.zeros(4, 2, dtype=torch.float64)
    B[0, 0], B[1, 1], B[2, 1] = 1, 0.5, np.sqrt(0.75)
    torch.testing.assert_close(alignment.principal_cosines(A, B), torch.tensor([1, 0.5], dtype=torch.float64))
