"""Kronecker products against torch.kron."""

import pytest
import torch

from repro.linalg.kronecker import KroneckerMean, factored, kronecker_eigenvalues


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def symmetric(*shape):
    A = random(*shape)
    return A + A.mT


def test_eigenvalues_are_the_products():
    A, B = symmetric(3, 3), symmetric(4, 4)
    exact = torch.linalg.eigvalsh(torch.kron(A, B)).flip(0)
    torch.testing.assert_close(kronecker_eigenvalues(A, B), exact, rtol=0, atol=1e-12)


def test_mean_of_kronecker_products():
    A, B = symmetric(2, 3, 3), symmetric(2, 5, 5)
    dense = (torch.kron(A[0], B[0]) + torch.kron(A[1], B[1])) / 2
    operator = KroneckerMean(A, B)
    torch.testing.assert_close(operator.dense(), dense, rtol=0, atol=1e-12)
    W = random(3, 5)  # acts on a flattened weight as A W B
    expected = (A[0] @ W @ B[0] + A[1] @ W @ B[1]) / 2
    torch.testing.assert_close((operator @ W.flatten()).view(3, 5), expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="shorter"):
        KroneckerMean(A, B[:1])


@pytest.mark.parametrize("rank", [0, 1, 2, 5])
def test_mean_of_products_of_low_rank(rank):
    """Factors of few samples are applied by their square roots, and the mean is the same."""
    a, b = random(3, 7, rank), random(3, 6, 2)
    A, B = a @ a.mT, b @ b.mT
    assert len(factored(A[0])) == (2 if rank < 3.5 else 1)
    dense = sum(torch.kron(A[c], B[c]) for c in range(3)) / 3
    torch.testing.assert_close(KroneckerMean(A, B).dense(), dense, rtol=0, atol=1e-12)
    single = KroneckerMean(A, B, torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.dense().double(), dense, rtol=0, atol=1e-5 * max(1, float(dense.abs().max())))


def test_only_a_matrix_that_has_a_root_is_factored():
    """Pivoted Cholesky ends early for indefinite matrices too, and for those that are not finite."""
    S = torch.diag(torch.tensor([4.0, -3.0, -2.0, -1.0], dtype=torch.float64))
    assert len(factored(S)) == 1
    assert len(factored(torch.full((4, 4), torch.nan, dtype=torch.float64))) == 1
    a = random(20, 1)
    R, RT = factored(a @ a.T)
    assert R.shape == (20, 1)
    assert torch.equal(RT, R.T)
