"""Compositions of operators against the dense matrices they stand for."""

import pytest
import torch

from repro.linalg.operator import Dense, LowRank, Projected

P = 7


def symmetric(seed=0):
    A = torch.randn(P, P, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return A + A.T


def test_sums_differences_and_multiples():
    A, B = symmetric(1), symmetric(2)
    found = 2 * Dense(A) + Dense(B) * 0.5 - Dense(B @ B)
    torch.testing.assert_close(found.dense(), 2 * A + 0.5 * B - B @ B)
    v = torch.ones(P, dtype=torch.float64)
    torch.testing.assert_close(found @ v, found.dense() @ v)


@pytest.mark.parametrize("columns", [1, 3])
def test_low_rank_and_projection(columns):
    A, U = symmetric(), symmetric(1)[:, :columns]
    weights = torch.arange(1.0, columns + 1, dtype=torch.float64)
    torch.testing.assert_close(LowRank(U, weights).dense(), U @ weights.diag() @ U.T)
    B = torch.linalg.qr(U).Q
    off = torch.eye(P, dtype=torch.float64) - B @ B.T
    torch.testing.assert_close(Projected(Dense(A), B).dense(), off @ A @ off)


def test_products_are_counted_by_column():
    A = Dense(symmetric())
    (2 * A) @ torch.ones(P, 3, dtype=torch.float64)
    A @ torch.ones(P, dtype=torch.float64)
    assert A.products == 4
