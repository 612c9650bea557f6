"""Kronecker products against torch.kron."""

import pytest
import torch

from repro.linalg.kronecker import KroneckerMean, kronecker_eigenvalues


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
        KroneckerMean(A, B[:1]) @ W.flatten()
