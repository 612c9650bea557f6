"""Eigenvectors, also where torch's algorithm gives up."""

import pytest
import torch

from repro.linalg.dense import eigh


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fails", [False, True])
def test_eigenpairs_of_a_matrix_of_low_rank(monkeypatch, dtype, fails):
    rows = torch.randn(5, 40, generator=torch.Generator().manual_seed(0), dtype=dtype)
    A = rows.T @ rows
    expected = torch.linalg.eigvalsh(A)

    def give_up(matrix):
        raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")

    if fails:
        monkeypatch.setattr(torch.linalg, "eigh", give_up)
    values, vectors = eigh(A)
    close = {"rtol": 0, "atol": 100 * torch.finfo(dtype).eps * float(expected[-1])}
    torch.testing.assert_close(values, expected, **close)
    torch.testing.assert_close(A @ vectors, vectors * values, **close)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(40, dtype=dtype), rtol=0, atol=close["atol"])


def test_what_is_no_matrix_stays_an_error():
    with pytest.raises(RuntimeError, match="square"):
        eigh(torch.ones(2, 3))
