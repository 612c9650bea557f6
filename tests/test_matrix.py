"""Leading eigenvalues, trace, diagonal and Frobenius norm of a user's own network, against dense matrices."""

import pytest
import torch
from oracles import dense_gauss_newton, dense_hessian, dense_residual, tiny
from torch import nn

import repro
from repro.curvature.gauss_newton import GaussNewton

DENSE = {"hessian": dense_hessian, "gauss_newton": dense_gauss_newton, "residual": dense_residual}


@pytest.fixture(scope="module")
def problem():
    model, x, y = tiny("tanh", examples=12)
    return model, x, y, {name: dense(model, x, y).detach() for name, dense in DENSE.items()}


@pytest.mark.parametrize("matrix", DENSE)
def test_top(problem, matrix):
    model, x, y, dense = problem
    values = torch.linalg.eigvalsh(dense[matrix])
    largest, by_size = values.flip(0)[:3], values[values.abs().argsort(descending=True)][:3]
    for by, exact in (("largest", largest), ("magnitude", by_size)):
        found = repro.top(model, (x, y), 3, matrix=matrix, by=by, tolerance=1e-7)
        torch.testing.assert_close(found.eigenvalues, exact)
        torch.testing.assert_close(
            dense[matrix] @ found.vectors, found.vectors * found.eigenvalues, rtol=0, atol=1e-6 * float(values[-1])
        )
    assert repro.top(model, (x, y), matrix=matrix).eigenvalues.shape == (1,)


@pytest.mark.parametrize("matrix", DENSE)
def test_moments(problem, matrix):
    model, x, y, dense = problem
    found, A = repro.moments(model, (x, y), matrix=matrix, products=24), dense[matrix]
    for estimate, exact in zip(found[:3], (A.trace(), A.diagonal(), A.norm())):
        off = (estimate.value - exact).abs()
        assert (off <= 4 * estimate.error + 1e-12).double().mean() > 0.95
    exact = matrix == "gauss_newton"
    assert (found.trace.error == 0) == (not found.diagonal.error.any()) == exact


def test_more_classes_than_products(problem):
    """Then the trace of G is an estimate too: exact it would take a gradient for each class."""
    model, x, y = tiny("linear")
    wide = nn.Sequential(*model, nn.Linear(3, 9).double()).eval()
    few, many = (repro.moments(wide, (x, y), matrix="gauss_newton", products=n) for n in (6, 8))
    assert few.trace.error > 0
    assert many.trace.error == 0
    assert abs(few.trace.value - many.trace.value) < 5 * few.trace.error


def test_another_loss(problem):
    model, x, *_ = problem
    targets = torch.randn(12, 3, dtype=torch.float64)
    G = GaussNewton(model, [(x, targets)], loss=nn.MSELoss()).dense()
    found = repro.moments(model, (x, targets), matrix="gauss_newton", loss=nn.MSELoss())
    assert 0 < abs(found.trace.value - G.trace()) < 4 * found.trace.error
    top = repro.top(model, (x, targets), matrix="gauss_newton", loss=nn.MSELoss(), tolerance=1e-7)
    torch.testing.assert_close(top.eigenvalues, torch.linalg.eigvalsh(G)[-1:])


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda *n: repro.top(*n, matrix="fisher"), ValueError, "matrix is 'fisher'; it must be one of 'hessian', "),
        (lambda *n: repro.top(*n, by="size"), ValueError, "by is 'size'; it must be one of 'magnitude', 'largest'"),
        (lambda *n: repro.top(*n, 0), ValueError, "k must be in 1"),
        (lambda *n: repro.moments(*n, products=2), ValueError, "products is 2"),
        (lambda *n: repro.moments(*n, steps=2), TypeError, "steps"),
    ],
)
def test_mistakes_get_a_sentence(problem, call, error, sentence):
    model, x, y, _ = problem
    with pytest.raises(error, match=sentence):
        call(model, (x, y))
