"""Knockouts of a tiny trained network have the spectra of its dense matrices."""

import numpy as np
import pytest
import torch
from dense import dense_parts, eigenvalues

from repro.curvature.cross_class import class_structure
from repro.measurements import gauss_newton_knockouts
from repro.spectra.broadening import wasserstein

C = 4
LANCZOS = {"steps": 74, "probes": 2, "tolerance": 1e-6}


@pytest.mark.parametrize("classes", [None, [3, 1]], ids=["all classes", "two classes"])
@pytest.mark.parametrize("how", ["subtraction", "projection"])
def test_knockouts_have_the_spectra_of_the_dense_matrices(tiny, how, classes):
    arrays = gauss_newton_knockouts.measure(
        tiny, gauss_newton_knockouts.Settings(knockout=how, outliers=None, classes=classes, **LANCZOS)
    )
    G, parts = dense_parts(tiny, classes)
    k = len(classes or range(C))
    for name in ("full", *parts):
        expected = G if name == "full" else G - parts[name]
        if how == "projection" and name in ("class", "cross", "same"):
            B = class_structure(tiny.model, tiny.batches(), classes=classes).basis(name)
            away = torch.eye(len(G), dtype=G.dtype) - B @ B.T
            expected = away @ G @ away
        exact = eigenvalues(expected)
        top = exact[np.argsort(-np.abs(exact))][:k]
        assert arrays[f"{name}_converged"].all()
        np.testing.assert_allclose(np.abs(arrays[f"{name}_eigenvalues"]), np.abs(top), rtol=1e-6, atol=1e-10)
        np.testing.assert_allclose(arrays[f"{name}_weights"].sum(axis=1), 1)
        distance = wasserstein(arrays[f"{name}_nodes"], arrays[f"{name}_weights"], exact)
        assert distance < 0.2 * np.abs(exact).mean()  # two random probes; the nodes themselves are exact
    np.testing.assert_allclose(arrays["class_part"], eigenvalues(parts["class"])[:k], rtol=1e-9, atol=1e-14)
    assert len(arrays["cross_part"]) == (2 * 1 if classes else C * (C - 2))
    assert classes or arrays["mass"].sum() == pytest.approx(1)


def test_without_within_the_spectrum_is_exact(tiny):
    arrays = gauss_newton_knockouts.measure(
        tiny, gauss_newton_knockouts.Settings(knockout="subtraction", outliers=2, **LANCZOS)
    )
    G, parts = dense_parts(tiny)
    exact = eigenvalues(G - parts["within"])
    assert wasserstein(arrays["within_nodes"], arrays["within_weights"], exact) < 1e-12
    assert arrays["within_nodes"].shape[1] == LANCZOS["steps"]  # smoothed like the others
    assert len(arrays["within_eigenvalues"]) == 2
