"""Coordinates in eigenvectors against the eigenvectors themselves."""

import pytest
import torch

from repro.linalg.coordinates import eigen_coordinates


def symmetric(eigenvalues):
    generator = torch.Generator().manual_seed(0)
    n = len(eigenvalues)
    Q, _ = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))
    return (Q * eigenvalues) @ Q.T, Q


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_coordinates_are_those_in_the_eigenvectors(n):
    eigenvalues = 2.0 ** -torch.arange(n, dtype=torch.float64)
    A, Q = symmetric(eigenvalues)
    X = torch.randn(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values, coordinates = eigen_coordinates(A.clone(), X)
    torch.testing.assert_close(values, eigenvalues, rtol=0, atol=1e-14)
    distinct = min(n, 20)  # beyond, neighbours are too close for the directions of their eigenvectors
    torch.testing.assert_close(coordinates[:distinct].abs(), (Q.T @ X)[:distinct].abs(), rtol=0, atol=1e-8)
    torch.testing.assert_close(coordinates.T @ coordinates, X.T @ X)
    torch.testing.assert_close(coordinates.T @ (values[:, None] * coordinates), X.T @ A @ X)


@pytest.mark.parametrize("eigenvalues", [torch.zeros(6), torch.ones(6), torch.tensor([1.0, 0, 0, 0, 0, -1])])
def test_multiple_and_zero_eigenvalues(eigenvalues):
    A, _ = symmetric(eigenvalues.double())
    X = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values, coordinates = eigen_coordinates(A.clone(), X)
    torch.testing.assert_close(values, eigenvalues.double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(coordinates.T @ (values[:, None] * coordinates), X.T @ A @ X, rtol=0, atol=1e-13)


def test_divide_and_conquer_may_fail(monkeypatch):
    import scipy.linalg

    solve, drivers = scipy.linalg.eigh_tridiagonal, []

    def failing(diagonal, off_diagonal, lapack_driver):
        drivers.append(lapack_driver)
        if lapack_driver == "stevd":
            raise scipy.linalg.LinAlgError("not converged")
        return solve(diagonal, off_diagonal, lapack_driver=lapack_driver)

    monkeypatch.setattr(scipy.linalg, "eigh_tridiagonal", failing)
    A, _ = symmetric(torch.arange(8.0).double())
    values, coordinates = eigen_coordinates(A.clone(), A)
    assert drivers == ["stevd", "stev"]
    torch.testing.assert_close(values, torch.arange(8.0).double().flip(0), rtol=0, atol=1e-13)
    torch.testing.assert_close(coordinates.norm(dim=1), values, rtol=0, atol=1e-13)
