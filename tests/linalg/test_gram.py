"""Low-rank spectra from Gram matrices."""

import pytest
import torch

from repro.linalg.gram import gram_matrix, gram_spectrum


def problem(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    V = torch.randn(6, 50, dtype=torch.float64, generator=generator)
    V[5] = V[0] - 2 * V[1]  # rank 5
    return V.to(dtype), torch.rand(6, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("size", [7, 50])
def test_spectrum_and_eigenvectors_from_slices(size):
    V, weights = problem()
    dense = (V.T * weights) @ V
    values, combinations = gram_spectrum(gram_matrix(V.split(size, dim=1)), weights)
    exact = torch.linalg.eigvalsh(dense).flip(0)
    torch.testing.assert_close(values, exact[:6], rtol=1e-12, atol=1e-12)
    vectors = V.T @ combinations
    torch.testing.assert_close(vectors[:, :5].T @ vectors[:, :5], torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(dense @ vectors, vectors * values, rtol=0, atol=1e-11)
    assert not combinations[:, 5].any()  # beyond the rank


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_rank_does_not_depend_on_the_scale(size):
    V, weights = problem()
    _, combinations = gram_spectrum(gram_matrix([size * V]), weights)
    assert combinations.any(dim=0).tolist() == [True] * 5 + [False]
    _, combinations = gram_spectrum(gram_matrix([size * V[:1].expand(6, -1)]), weights)
    assert combinations.any(dim=0).tolist() == [True] + [False] * 5


def test_slices_of_single_precision_are_added_in_double():
    V = torch.full((1, 1 << 12), 1e-2)
    V[0, 0] = 1e2  # 1e4 + 4095 times 1e-4, each below half a unit in the last place of float32
    gram = gram_matrix(V.split(1, dim=1))
    assert gram.dtype == torch.float64
    torch.testing.assert_close(gram, V.double() @ V.double().T, rtol=1e-12, atol=0)


def test_zero_weights_and_bad_input():
    V, weights = problem()
    values, combinations = gram_spectrum(gram_matrix([V]), torch.zeros(6))
    assert not values.any()
    assert not combinations.any()
    assert not gram_spectrum(torch.zeros(6, 6, dtype=torch.float64), weights)[1].any()
    with pytest.raises(ValueError, match="negative"):
        gram_spectrum(gram_matrix([V]), -weights)
    with pytest.raises(ValueError, match="no slices"):
        gram_matrix([])
