"""Trace, diagonal and Frobenius norm against dense matrices, and error bars that cover."""

import numpy as np
import pytest
import torch
from scipy import stats

from repro.linalg.moments import complement_trace, moments
from repro.linalg.operator import Dense, LowRank

P = 60


def matrix(outliers: list[float], *, seed: int = 0) -> Dense:
    """Outliers over a bulk of no special basis."""
    generator = torch.Generator().manual_seed(seed)
    bulk = torch.randn(P - len(outliers), dtype=torch.float64, generator=generator)
    Q = torch.linalg.qr(torch.randn(P, P, dtype=torch.float64, generator=generator)).Q
    values = torch.cat([torch.tensor(outliers, dtype=torch.float64), 1 + bulk])
    return Dense((Q * values) @ Q.T)


def truth(A: Dense) -> list[torch.Tensor]:
    return [A.A.trace(), A.A.diagonal(), A.A.norm()]


def deviations(A: Dense, *, runs: int, products: int) -> list[np.ndarray]:
    """(estimate − truth) / error of trace, diagonal and norm, over seeds."""
    rows: list[list[np.ndarray]] = []
    for seed in range(runs):
        found = moments(A, products=products, seed=seed)
        estimates = (found.trace, found.diagonal, found.frobenius_norm)
        rows.append([((e.value - exact) / e.error).numpy() for e, exact in zip(estimates, truth(A))])
    return [np.stack(column) for column in zip(*rows)]


def test_error_bars_cover():
    """By Student's t 90 % of the intervals hold the truth; of so many runs, to three standard errors of that share."""
    runs, products = 100, 16
    wide = stats.t.ppf(0.95, df=products // 2 - 1)
    for found in deviations(matrix([50.0, -30.0, 20.0]), runs=runs, products=products):
        inside = (abs(found) < wide).reshape(runs, -1).mean(axis=1)  # of the diagonal: the share of its entries
        assert inside.mean() == pytest.approx(0.9, abs=3 * (0.09 / runs) ** 0.5)


def test_what_the_basis_holds_has_no_error():
    """A matrix of rank 3: the run finds all of it, with a value of zero repeated."""
    U = torch.linalg.qr(torch.randn(P, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    A = LowRank(U, torch.tensor([5.0, -2.0, 1.0], dtype=torch.float64))
    found, dense = moments(A, products=20), A.dense()
    assert found.products == 20
    torch.testing.assert_close(found.trace.value, dense.trace())
    torch.testing.assert_close(found.diagonal.value, dense.diagonal())
    torch.testing.assert_close(found.frobenius_norm.value, dense.norm())
    assert max(float(estimate.error.max()) for estimate in found[:3]) < 1e-9


def test_outliers_add_nothing_to_the_error():
    plain, outlying = (moments(matrix(outliers), products=24) for outliers in ([], [1e4, -1e4, 1e3]))
    for a, b in zip(plain[:2], outlying[:2]):
        assert b.error.mean() < 2 * a.error.mean()  # of the largest, plain signs would have thousands


def test_more_products_mean_a_smaller_error_and_less_memory_a_larger_one():
    A = matrix([50.0, -30.0, 20.0, 10.0])
    few, many = (moments(A, products=products).trace.error for products in (6, 50))
    assert many < few / 2
    narrow = moments(A, products=40, memory_budget=2 * P * 8)  # a basis of two
    assert narrow.trace.error > 3 * moments(A, products=40).trace.error
    assert abs(narrow.trace.value - A.A.trace()) < 4 * narrow.trace.error


@pytest.mark.parametrize("size", [1, 2, 7])
def test_matrices_smaller_than_the_basis(size):
    A = Dense(matrix([9.0]).A[:size, :size])
    found = moments(A)
    for estimate, exact in zip(found[:3], truth(A)):
        torch.testing.assert_close(estimate.value, exact)
        assert estimate.error.max() < 1e-12


def test_the_zero_matrix():
    found = moments(Dense(torch.zeros(5, 5)))
    assert all(not estimate.value.any() and not estimate.error.any() for estimate in found[:3])


def test_single_precision_and_a_seed():
    A = matrix([50.0, -30.0])
    double, single, other = moments(A), moments(Dense(A.A.float())), moments(A, seed=1)
    torch.testing.assert_close(single.trace.value, double.trace.value, rtol=1e-4, atol=0)
    torch.testing.assert_close(single.diagonal.value, double.diagonal.value.float(), rtol=0, atol=1e-3)
    assert other.trace.value != double.trace.value
    assert repr(double.trace) == f"{double.trace.value:.4g} ± {double.trace.error:.2g}"


@pytest.mark.parametrize("products", [3, 10.5])
def test_too_few_products(products):
    with pytest.raises(ValueError, match=f"products is {products}: a whole number, at least 4, is needed"):
        moments(matrix([]), products=products)


def test_the_trace_of_a_complement():
    A = matrix([50.0, -30.0, 20.0])
    vectors = torch.linalg.eigh(A.A).eigenvectors[:, -3:]
    rest = torch.eye(P, dtype=torch.float64) - vectors @ vectors.T
    exact, runs = (rest @ A.A @ rest).trace(), 60
    found = [complement_trace(A, vectors, 6, seed=seed) for seed in range(runs)]
    wide = stats.t.ppf(0.95, df=5)
    inside = np.mean([abs(float(e.value - exact)) < wide * float(e.error) for e in found])
    assert inside == pytest.approx(0.9, abs=3 * (0.09 / runs) ** 0.5)
