"""The same numbers on a GPU, with the basis there or on the host."""

import numpy as np
import pytest
import torch

from repro.linalg.eigenpairs import top_eigenpairs
from repro.linalg.lanczos import lanczos
from repro.linalg.operator import Dense
from repro.linalg.probe import random_unit_vector
from repro.linalg.spectrum import spectrum

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def matrices():
    A = torch.randn(300, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    A = A @ A.T / 300 + torch.diag(torch.tensor([9.0, -8.0, 7.0, *[0.0] * 297], dtype=torch.float64))
    return Dense(A), Dense(A.cuda())


def test_spectrum(matrices):
    here, there = (
        spectrum(A, k=3, steps=40, probes=2, tolerance=1e-3, memory_budget=1 << 30, seed=0) for A in matrices
    )
    assert there.vectors.is_cuda
    np.testing.assert_allclose(there.nodes, here.nodes, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(there.weights, here.weights, rtol=1e-5, atol=1e-10)


def test_eigenpairs(matrices):
    here, there = (
        top_eigenpairs(A, 3, tolerance=1e-3, max_products=99, memory_budget=1 << 20, seed=0) for A in matrices
    )
    torch.testing.assert_close(there.eigenvalues.cpu(), here.eigenvalues)
    assert there.converged.is_cuda
    assert there.converged.all()


def test_basis_on_the_host(matrices):
    _, A = matrices
    start = random_unit_vector(A, torch.Generator().manual_seed(1))
    on_device, on_host = lanczos(A, start, 30), lanczos(A, start, 30, basis_device=torch.device("cpu"))
    assert on_host.Q.device.type == "cpu"
    torch.testing.assert_close(on_host.Q, on_device.Q.cpu(), rtol=1e-6, atol=1e-8)
