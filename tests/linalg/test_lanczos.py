"""The Lanczos identity, orthonormality, breakdown at the rank, and Algorithms 1 and 2."""

import gc
from itertools import islice

import pytest
import torch

from repro.linalg.lanczos import basis_device, fast_lanczos, lanczos, recurrence, slow_lanczos
from repro.linalg.operator import Dense
from repro.linalg.probe import check_pair, inner, norm, random_unit_vector, random_vectors

P = 40


def symmetric(eigenvalues, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    U = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), dtype=torch.float64, generator=generator)).Q
    return Dense(((U * torch.as_tensor(eigenvalues, dtype=torch.float64)) @ U.T).to(dtype))


def spread(seed=1):
    """Outliers of both signs and a bulk around zero."""
    bulk = torch.randn(P - 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) / 10
    return torch.cat([torch.tensor([9.0, 6.0, -5.0, 3.0, -2.0], dtype=torch.float64), bulk])


def start_of(A, seed=3):
    return random_unit_vector(A, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("steps", [1, 7, P])
def test_lanczos_identity_and_orthonormality(steps, dtype, tolerance):
    A = symmetric(spread(), dtype)
    run = lanczos(A, start_of(A), steps)
    Q, T = run.Q.double(), run.matrix()
    torch.testing.assert_close(Q @ Q.T, torch.eye(steps, dtype=torch.float64), rtol=0, atol=tolerance)
    residual = A.A.double() @ Q.T - Q.T @ T  # must be beta q e_M^T, q orthogonal to the basis
    torch.testing.assert_close(residual[:, :-1], torch.zeros(P, steps - 1, dtype=torch.float64), rtol=0, atol=tolerance)
    torch.testing.assert_close(residual[:, -1].norm(), run.beta[-1], rtol=0, atol=20 * tolerance)
    assert (Q @ residual[:, -1]).abs().max() < 20 * tolerance
    assert A.products == steps


def test_tridiagonal_eigenvalues_at_full_depth_are_those_of_the_matrix():
    A = symmetric(spread())
    values, _ = lanczos(A, start_of(A), P).eigh()
    torch.testing.assert_close(values, spread().sort().values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_stops_when_a_low_rank_matrix_is_exhausted(rank):
    A = symmetric([*range(1, rank + 1), *[0.0] * (P - rank)])
    run = lanczos(A, start_of(A), P)
    assert len(run.alpha) == len(run.Q) == A.products == rank + 1  # one more: the start has a part in the null space
    torch.testing.assert_close(run.eigh()[0], torch.arange(rank + 1, dtype=torch.float64), rtol=0, atol=1e-12)
    assert len(fast_lanczos(A, P, start=start_of(A)).values) == rank + 1


def test_breakdown_in_single_precision_leaves_only_zeros():
    """Rounding blurs the rank, so the run may stop a little later; what it adds must be zero."""
    A = symmetric([1.0, 2, 3, 4, 5, 6, *[0.0] * (P - 6)], torch.float32)
    values, _ = lanczos(A, start_of(A), P).eigh()
    assert 7 <= len(values) <= 9
    top = values.sort(descending=True).values
    torch.testing.assert_close(top[:6], torch.arange(6.0, 0, -1, dtype=torch.float64), rtol=0, atol=1e-5)
    assert top[6:].abs().max() < 1e-5


def test_fast_lanczos_holds_a_few_vectors_whatever_the_steps():
    """Else a network of 28 million parameters takes 14 GB for 128 steps."""
    alive = []

    class Watching(Dense):
        def matmat(self, V):
            vectors = [it for it in gc.get_objects() if type(it) is torch.Tensor and it.numel() == P]
            alive.append(len({vector.data_ptr() for vector in vectors}))
            return super().matmat(V)

    A = Watching(symmetric(spread()).A)
    fast_lanczos(A, 30, orthogonal_to=torch.eye(P, dtype=torch.float64)[:2])
    assert len(alive) == 30
    assert max(alive) - alive[0] <= 4


def test_what_was_taken_out_does_not_come_back_by_rounding():
    """U is never an invariant space to the bit; G above the memory budget had eigenvalues of -0.65 of it."""
    eigenvalues = torch.zeros(2000, dtype=torch.float64)
    eigenvalues[:5], eigenvalues[5:305] = torch.linspace(0.6, 0.8, 5), torch.logspace(-4, -1, 300)
    A = Dense(eigenvalues.diag())
    near = torch.eye(2000, 5, dtype=torch.float64)
    near += 1e-4 * torch.randn(2000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 2000**0.5
    U = torch.linalg.qr(near).Q.T.contiguous()
    steps = list(islice(recurrence(A, start_of(A), orthogonal_to=U, scale=0.8), 100))
    assert len(steps) == 100
    assert max(float((U @ step.q).norm()) for step in steps) < 1e-12
    values = fast_lanczos(A, 100, orthogonal_to=U, scale=0.8).values
    complement = torch.eye(2000, dtype=torch.float64) - U.T @ U
    exact = torch.linalg.eigvalsh(complement @ A.A @ complement)
    assert exact[0] - 1e-9 <= values[0]
    assert exact[-1] + 1e-9 >= values[-1]
    torch.testing.assert_close(values[-1], exact[-1], rtol=1e-6, atol=0)


def test_zero_matrix_takes_one_step():
    A = Dense(torch.zeros(P, P))
    assert lanczos(A, start_of(A), 10).alpha.tolist() == [0.0]
    assert fast_lanczos(A, 10).values.tolist() == [0.0]


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_what_counts_as_rounding_scales_with_the_matrix(size):
    A = symmetric(spread())
    small = Dense(size * A.A)
    torch.testing.assert_close(lanczos(small, start_of(A), 9).alpha / size, lanczos(A, start_of(A), 9).alpha)
    start = start_of(A)
    torch.testing.assert_close(
        fast_lanczos(small, 9, start=start).values / size, fast_lanczos(A, 9, start=start).values
    )


def test_two_steps_are_enough_to_see_that_a_matrix_is_not_symmetric():
    A = torch.randn(P, P, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for run in (lambda: lanczos(Dense(A), start_of(Dense(A)), 2), lambda: fast_lanczos(Dense(A), 2)):
        with pytest.raises(ValueError, match="not one fixed symmetric matrix"):
            run()


def test_a_start_that_is_nearly_an_eigenvector_is_not_taken_for_asymmetry():
    """<q_0, A q_1> then is rounding of the large eigenvalue, while A q_1 itself is tiny."""
    A = symmetric([1e4, *[0.0] * (P - 1)])
    outlier, other = torch.linalg.eigh(A.A).eigenvectors[:, [-1, 0]].T
    start = (outlier + 1e-10 * other) / norm(outlier + 1e-10 * other)
    assert len(lanczos(A, start, 5).alpha) == 2
    assert float(fast_lanczos(A, 5, start=start).values[-1]) == pytest.approx(1e4)


@pytest.mark.parametrize(("dtype", "part"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_nearly_a_multiple_of_the_identity(dtype, part):
    """As a Hessian with weight decay is where the loss is almost zero: any start is nearly an eigenvector."""
    A = symmetric(1 + part * spread(), dtype)
    for run in (lambda: fast_lanczos(A, 9).values, lambda: lanczos(A, start_of(A), 9).eigh()[0]):
        values = run()
        assert float(values.min()) == pytest.approx(1 - 5 * part, abs=part)
        assert float(values.max()) == pytest.approx(1 + 9 * part, abs=part)


def test_complement_of_given_vectors():
    values = spread()
    A = symmetric(values)
    exact, vectors = torch.linalg.eigh(A.A)
    U = vectors[:, exact.abs() > 1.5].T.contiguous()  # the five outliers
    run = lanczos(A, start_of(A), P, orthogonal_to=U)
    assert len(run.alpha) == P - 5
    assert (run.Q @ U.T).abs().max() < 1e-13
    torch.testing.assert_close(run.eigh()[0], values[5:].sort().values, rtol=0, atol=1e-12)
    fast = fast_lanczos(A, 12, start=start_of(A), orthogonal_to=U)
    slow = lanczos(A, start_of(A), 12, orthogonal_to=U)
    torch.testing.assert_close(fast.values, slow.eigh()[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.float64, 8)])
def test_a_basis_may_fill_the_memory_budget_and_no_more(dtype, size):
    A = symmetric(spread(), dtype)
    assert basis_device(A, 9, 9 * P * size) == A.device
    assert basis_device(A, 9, 9 * P * size - 1) is None


def test_slow_lanczos_keeps_multiplicities():
    values = torch.tensor([4.0, 4.0, 4.0, 1.0, 0.0, 0.0, -2.0, -2.0], dtype=torch.float64)
    A = symmetric(values)
    T, V = slow_lanczos(A)
    torch.testing.assert_close(V.T @ V, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(V @ T @ V.T, A.A, rtol=0, atol=1e-12)
    assert (T.triu(2).abs().max(), T.tril(-2).abs().max()) < (1e-12, 1e-12)
    torch.testing.assert_close(torch.linalg.eigvalsh(T), values.sort().values, rtol=0, atol=1e-12)


def test_fast_lanczos_is_gauss_quadrature():
    """M nodes integrate polynomials up to degree 2M - 1 exactly: <v, A^j v>, and no further."""
    A, M = symmetric(spread()), 4
    v = start_of(A)
    ritz = fast_lanczos(A, M, start=v)
    power = v
    for degree in range(2 * M + 1):
        moment, exact = float(ritz.weights @ ritz.values**degree), float(v @ power)
        if degree < 2 * M:
            assert moment == pytest.approx(exact, rel=1e-10)
        else:
            assert moment != pytest.approx(exact, rel=1e-6)
        power = A @ power
    assert A.products == M + 2 * M + 1


def test_fast_lanczos_residuals_bound_the_error():
    A = symmetric(spread())
    ritz = fast_lanczos(A, 8)
    distance = (ritz.values[:, None] - spread()).abs().min(dim=1).values
    assert (distance <= ritz.residuals + 1e-12).all()
    assert ritz.residuals[-1] < 0.1  # the top eigenvalue is found, so the bound says something


def test_ghosts_share_the_weight_of_what_they_copy():
    """Long runs without reorthogonalisation repeat eigenvalues but keep the measure."""
    A = symmetric(spread())
    v = start_of(A)
    ritz = fast_lanczos(A, 3 * P, start=v)
    near = (ritz.values - 9.0).abs() < 1e-6
    assert near.sum() > 1
    U = torch.linalg.eigh(A.A).eigenvectors
    assert float(ritz.weights[near].sum()) == pytest.approx(float((U[:, -1] @ v) ** 2), rel=1e-6)


def test_probes_depend_on_the_seed_alone():
    A32, A64 = symmetric(spread(), torch.float32), symmetric(spread())
    torch.manual_seed(1)
    first = random_vectors(A64, 2, torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    torch.testing.assert_close(first, random_vectors(A64, 2, torch.Generator().manual_seed(5)), rtol=0, atol=0)
    torch.testing.assert_close(first.float(), random_vectors(A32, 2, torch.Generator().manual_seed(5)), rtol=0, atol=0)
    assert not torch.equal(first[:, 0], first[:, 1])
    assert not torch.equal(first, first.float().double())  # drawn in double precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_matrix_that_is_not_symmetric_or_not_finite_is_refused(dtype):
    A = symmetric(spread(), dtype)
    fast_lanczos(A, 2)
    skew = torch.zeros(P, P, dtype=dtype)
    skew[0, 1], skew[1, 0] = 0.3, -0.3
    with pytest.raises(ValueError, match="not one fixed symmetric matrix"):
        fast_lanczos(Dense(A.A + skew), 2)
    rounding = torch.finfo(dtype).eps ** 0.5
    fast_lanczos(Dense(A.A + rounding / 10 * skew), 2)
    with pytest.raises(ValueError, match="not one fixed symmetric matrix"):
        fast_lanczos(Dense(A.A + 1000 * rounding * skew), 2)
    with pytest.raises(ValueError, match="not finite"):
        fast_lanczos(Dense(A.A * float("nan")), 2)
    for left, right in [(float("nan"), 1.0), (1.0, float("inf"))]:
        with pytest.raises(ValueError, match="not finite"):
            check_pair(A, left, right, 1.0)


def test_inner_and_norm_of_long_single_precision_vectors():
    """float32 sums of millions of terms on a CPU lose half their digits; eigenvalues would inherit that."""
    v = torch.rand(1 << 22, generator=torch.Generator().manual_seed(0))
    assert norm(v) == pytest.approx(float(v.double().norm()), rel=1e-12)
    assert inner(v, v) == pytest.approx(float(v.double() @ v.double()), rel=1e-7)
