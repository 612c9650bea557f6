"""Top eigenpairs, thick restart, repeated eigenvalues, subspace iteration."""

import pytest
import torch

from repro.linalg.eigenpairs import top_eigenpairs
from repro.linalg.operator import Dense, LinearOperator, deflated
from repro.linalg.subspace import subspace_iteration

P = 300
OUTLIERS = [12.0, -9.0, 7.0, 5.0, -4.0, 3.0, 2.5, 2.0]
AMPLE = 1 << 30


def symmetric(eigenvalues, dtype=torch.float64, seed=0):
    size = len(eigenvalues)
    U = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))).Q
    return Dense(((U * torch.as_tensor(eigenvalues, dtype=torch.float64)) @ U.T).to(dtype))


def spread():
    bulk = torch.randn(P - len(OUTLIERS), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / 5
    return torch.cat([torch.tensor(OUTLIERS, dtype=torch.float64), bulk])


def check_pairs(A, pairs, expected, tolerance):
    """Signs, values to second order in the residual, orthonormal vectors, and the residuals reported are true."""
    vectors, values = pairs.vectors.double(), pairs.eigenvalues.double()
    torch.testing.assert_close(
        values, torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance**2 * 30 + 2e-6, atol=0
    )
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(len(expected), dtype=torch.float64), rtol=0, atol=1e-5)
    true = (A.A.double() @ vectors - vectors * values).norm(dim=0)
    torch.testing.assert_close(pairs.residuals.double(), true, rtol=1e-3, atol=2e-5)
    assert (true <= tolerance * values.abs() + 2e-5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-3])
def test_prescribed_outliers_with_their_signs(tolerance, dtype):
    A = symmetric(spread(), dtype)
    pairs = top_eigenpairs(A, 8, tolerance=tolerance, max_products=P, memory_budget=AMPLE, seed=0)
    assert pairs.converged.all()
    check_pairs(A, pairs, OUTLIERS, tolerance)
    assert pairs.products == A.products < 50
    assert pairs.eigenvalues.dtype == pairs.vectors.dtype == dtype


def test_stops_as_soon_as_the_tolerance_is_met():
    A = Dense(torch.linspace(0.9, 1.1, P, dtype=torch.float64).diag())
    pairs = top_eigenpairs(A, 1, tolerance=0.2, max_products=P, memory_budget=AMPLE, seed=0)
    assert pairs.products == 1 + 1 + 8  # the search, the rounding, and the run that looks for what is missing


def test_vectors_stay_orthonormal_under_a_large_shift():
    """alpha then swamps beta, and the subtraction of alpha q alone leaves rounding along q."""
    A = Dense(symmetric(spread()).A + 1e6 * torch.eye(P, dtype=torch.float64))
    pairs = top_eigenpairs(A, 5, tolerance=1e-12, max_products=60, memory_budget=AMPLE, seed=0)
    torch.testing.assert_close(pairs.vectors.T @ pairs.vectors, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-13)


def test_largest_leaves_negative_outliers_out():
    A = symmetric(spread())
    pairs = top_eigenpairs(A, 3, tolerance=1e-3, max_products=P, memory_budget=AMPLE, seed=0, by="largest")
    check_pairs(A, pairs, [12.0, 7.0, 5.0], 1e-3)


def test_does_not_touch_the_global_random_state():
    A = symmetric(spread())
    arguments = {"tolerance": 1e-3, "max_products": P, "memory_budget": AMPLE}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = top_eigenpairs(A, 3, seed=1, **arguments)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    assert torch.equal(top_eigenpairs(A, 3, seed=1, **arguments).vectors, first.vectors)
    assert not torch.equal(top_eigenpairs(A, 3, seed=2, **arguments).vectors, first.vectors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thick_restart_agrees_with_the_unrestricted_run(dtype):
    """Eigenvalues without a gap, so that the basis of 14 vectors must be restarted many times."""
    values = torch.linspace(-0.8, 1, P, dtype=torch.float64)
    A = symmetric(values, dtype)
    arguments = {"tolerance": 1e-4, "max_products": 10 * P, "seed": 0}
    free = top_eigenpairs(A, 4, memory_budget=AMPLE, **arguments)
    tight = top_eigenpairs(A, 4, memory_budget=14 * P * torch.finfo(dtype).bits // 8, **arguments)
    assert tight.converged.all()
    assert max(50, free.products) < tight.products < 3 * free.products
    check_pairs(A, tight, values.flip(0)[:4], 1e-4)
    overlap = (free.vectors.T @ tight.vectors).abs()
    torch.testing.assert_close(overlap, torch.eye(4, dtype=dtype), rtol=0, atol=0.02)  # angle: residual / gap


def test_products_are_bounded_and_what_is_unconverged_says_so(caplog):
    A = symmetric(spread())
    top_eigenpairs(A, 1, tolerance=1e-6, max_products=P, memory_budget=AMPLE, seed=0)
    assert "not converged" not in caplog.text
    A = symmetric(spread())
    pairs = top_eigenpairs(A, 8, tolerance=1e-6, max_products=15, memory_budget=AMPLE, seed=0)
    assert f"{int((~pairs.converged).sum())} of 8 eigenpairs not converged" in caplog.text
    assert 15 + 1 < A.products == pairs.products <= 15 + 1 + 8
    assert pairs.converged[0]
    assert not pairs.converged[-1]
    true = (A.A @ pairs.vectors - pairs.vectors * pairs.eigenvalues).norm(dim=0)
    torch.testing.assert_close(pairs.residuals, true, rtol=1e-6, atol=1e-10)
    assert torch.equal(pairs.converged, true <= 1e-6 * pairs.eigenvalues.abs())


@pytest.mark.parametrize("size", [1, 1e-15])
def test_low_rank_matrix_gives_all_copies_and_zeros(size):
    """The Krylov space is exhausted after three steps; fresh vectors find the other copies."""
    A = Dense(size * symmetric([5.0, 5.0, 5.0, -2.0, *[0.0] * (P - 4)]).A)
    pairs = top_eigenpairs(A, 6, tolerance=1e-3, max_products=P, memory_budget=AMPLE, seed=0)
    torch.testing.assert_close(
        pairs.eigenvalues / size, torch.tensor([5.0, 5, 5, -2, 0, 0], dtype=torch.float64), rtol=0, atol=1e-10
    )
    assert pairs.converged.all()
    assert A.products < 20
    for k in (2, 3):
        pairs = top_eigenpairs(A, k, tolerance=1e-3, max_products=P, memory_budget=AMPLE, seed=0)
        torch.testing.assert_close(pairs.eigenvalues / size, torch.full((k,), 5.0, dtype=torch.float64))


def test_a_copy_that_the_search_cannot_see_takes_its_place():
    values = spread()
    values[1] = 12.0
    A = symmetric(values)
    pairs = top_eigenpairs(A, 2, tolerance=1e-3, max_products=P, memory_budget=AMPLE, seed=0)
    check_pairs(A, pairs, [12.0, 12.0], 1e-3)
    rest = deflated(A, pairs.eigenvalues, pairs.vectors)
    check_pairs(A, top_eigenpairs(rest, 1, max_products=P), [7.0], 1e-3)


def test_identity_and_whole_spectrum():
    eye = Dense(torch.eye(5, dtype=torch.float64))
    pairs = top_eigenpairs(eye, 5, tolerance=1e-3, max_products=20, memory_budget=AMPLE, seed=0)
    torch.testing.assert_close(pairs.eigenvalues, torch.ones(5, dtype=torch.float64))
    A = symmetric(spread())
    whole = top_eigenpairs(A, P, tolerance=1e-3, max_products=P, memory_budget=AMPLE, seed=0)
    torch.testing.assert_close(whole.eigenvalues.sort().values, torch.linalg.eigvalsh(A.A), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("k", "max_products", "budget", "sentence"),
    [(0, 9, AMPLE, "must be in 1..300"), (9, 8, AMPLE, "below the number"), (8, 50, 8 * 9 * P, "holds 9 vectors")],
)
def test_impossible_requests(k, max_products, budget, sentence):
    with pytest.raises(ValueError, match=sentence):
        top_eigenpairs(symmetric(spread()), k, tolerance=1e-3, max_products=max_products, memory_budget=budget, seed=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_subspace_iteration_keeps_signs_and_counts(dtype):
    A = symmetric(spread(), dtype)
    pairs = subspace_iteration(A, 8, iterations=64)
    check_pairs(A, pairs, OUTLIERS, 1e-3)
    assert A.products == pairs.products == 8 * 64
    early = subspace_iteration(A, 8, iterations=8)
    assert early.converged.any()
    assert torch.equal(early.converged, early.residuals <= 1e-3 * early.eigenvalues.abs())
    assert not early.converged.all()


def test_deflation_removes_exactly_the_chosen_pairs():
    values = spread()
    A = symmetric(values)
    pairs = top_eigenpairs(A, 3, tolerance=1e-12, max_products=P, memory_budget=AMPLE, seed=0)
    rest = torch.linalg.eigvalsh(deflated(A, pairs.eigenvalues, pairs.vectors).dense())
    expected = torch.cat([values[3:], torch.zeros(3, dtype=torch.float64)]).sort().values
    torch.testing.assert_close(rest, expected, rtol=0, atol=1e-11)


class Diagonal(LinearOperator):
    """diag(values): a matrix of any size."""

    def __init__(self, values):
        super().__init__(values)
        self.values = values

    def matmat(self, V):
        return self.values[:, None] * V


def test_a_million_dimensions_in_single_precision():
    values = torch.linspace(0, 1, 1_000_000)
    values[[7, 77, 777]] = torch.tensor([10.0, -7.0, 5.0])
    pairs = top_eigenpairs(Diagonal(values), 3, tolerance=1e-3, max_products=60, memory_budget=AMPLE, seed=0)
    torch.testing.assert_close(pairs.eigenvalues, torch.tensor([10.0, -7.0, 5.0]), rtol=5e-6, atol=0)
    largest = pairs.vectors.abs().argmax(dim=0)
    assert largest.tolist() == [7, 77, 777]
    assert pairs.converged.all()
