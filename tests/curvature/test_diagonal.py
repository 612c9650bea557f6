"""The diagonal of G against the dense matrix, for every kind of layer."""

import pytest
import torch
from oracles import NETWORKS, dense_gauss_newton, tiny

from repro.curvature.diagonal import gauss_newton_diagonal


@pytest.mark.parametrize("name", NETWORKS)
def test_the_diagonal_is_that_of_the_dense_matrix(name):
    model, x, y = tiny(name)
    found = gauss_newton_diagonal(model, [(x[:4], y[:4]), (x[4:], y[4:])])
    torch.testing.assert_close(found, dense_gauss_newton(model, x, y).diagonal(), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("names", [["0.weight"], ["0.bias", "3.weight"], ["1.weight", "3.bias"]])
def test_some_of_the_parameters(names):
    model, x, y = tiny("mlp_bn")
    found = gauss_newton_diagonal(model, [(x, y)], parameters=names)
    torch.testing.assert_close(found, dense_gauss_newton(model, x, y, names=names).diagonal(), rtol=1e-9, atol=1e-14)


def test_in_slices_of_the_data(monkeypatch):
    model, x, y = tiny("conv_bn")
    whole = gauss_newton_diagonal(model, [(x, y)])
    monkeypatch.setattr("repro.curvature.diagonal.TEMPORARY", {"cpu": 1})
    torch.testing.assert_close(gauss_newton_diagonal(model, [(x, y)]), whole)
