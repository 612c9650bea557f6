"""Prescribed spectra with repeated eigenvalues, low rank, few dimensions and pairs inside the bulk, against float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.linalg.eigenpairs import top_eigenpairs
from repro.linalg.operator import Dense
from repro.linalg.spectrum import spectrum
from repro.spectra.broadening import linear_curve

AMPLE = 1 << 30
TOLERANCE = 1e-3


def symmetric(eigenvalues, dtype=torch.float64, seed=0):
    """A matrix with these eigenvalues, and its own copy in double precision, to which float32 results are compared."""
    values = torch.as_tensor(np.array(eigenvalues), dtype=torch.float64)
    U = torch.linalg.qr(torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed)).double()).Q
    A = (U * values) @ U.T
    return Dense(((A + A.T) / 2).to(dtype))


def check_converged_pairs(A, found, k):
    """What is called converged is an eigenpair to the tolerance, and is the leading one of its rank."""
    vectors = found.vectors.double()
    values = torch.as_tensor(found.eigenvalues).double()
    converged = torch.as_tensor(found.converged)
    dense = A.A.double()
    true = (dense @ vectors - vectors * values).norm(dim=0)
    rounding = torch.finfo(A.dtype).eps ** 0.75 * float(torch.linalg.eigvalsh(dense).abs().max())
    assert (true <= 1.01 * TOLERANCE * values.abs() + rounding * (values.abs() <= rounding))[converged].all()
    assert (torch.as_tensor(found.residuals).double() >= 0.3 * true)[converged].all()
    expected = torch.linalg.eigvalsh(dense).abs().sort(descending=True).values[: len(values)]
    room = 2 * TOLERANCE * expected + 2 * rounding
    rank = converged.cumprod(dim=0).bool()  # up to the first that has not converged
    assert (values.abs() >= expected - room)[rank].all()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(values)), atol=1e-4)
    if len(values) < min(k, A.dim):  # what is left is zero
        assert torch.linalg.eigvalsh(dense).abs().sort(descending=True).values[len(values)] <= rounding


@st.composite
def spectra(draw):
    """Some eigenvalues with their multiplicities, and a bulk or zeros beside them."""
    outliers = draw(st.lists(st.tuples(st.sampled_from([10.0, -8.0, 6.0, 3.0, 2.5]), st.integers(1, 6)), max_size=4))
    bulk = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(draw(st.integers(0, 40))) / 4
    values = [value for value, copies in outliers for _ in range(copies)] + bulk.tolist()
    return values + [0.0] * draw(st.integers(0 if values else 1, 10))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    values=spectra(),
    k=st.integers(1, 8),
    ample=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    probes=st.integers(1, 3),
)
def test_any_spectrum_gives_true_pairs_whole_masses_and_a_curve(values, k, ample, dtype, probes):
    A = symmetric(values, dtype)
    size = torch.finfo(dtype).bits // 8
    budget = AMPLE if ample else (k + 4) * A.dim * size
    found = spectrum(A, k=k, steps=40, probes=probes, tolerance=TOLERANCE, memory_budget=budget)
    check_converged_pairs(A, found, k)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-6)
    count = int(found.deflated.sum())
    np.testing.assert_allclose(found.weights[:, :count], 1 / A.dim, rtol=1e-6)
    np.testing.assert_allclose(found.nodes[:, :count], np.tile(found.eigenvalues[found.deflated], (probes, 1)))
    assert not (found.deflated & ~found.converged).any()
    curve = linear_curve(found.bulk().nodes, found.bulk().weights)
    assert np.isfinite(curve.density).all()
    integral = float(np.trapezoid(curve.density, curve.x))
    assert integral == pytest.approx(1 - count / A.dim, abs=0.15)  # a node at the end of the range loses some


REPEATED = {
    "25 of 50": [5.0] * 25 + np.linspace(-1, 1, 25).tolist(),
    "few distinct values": [10.0] * 3 + [-10.0] * 5 + [1.0] * 40,
    "every one twice": np.repeat(np.append([9.0, 7.0, -6.0], np.linspace(-1, 1, 47)), 2).tolist(),
    "a copy at the edge of the bulk": [9.0, 7.0, 1.1, 1.1, *np.linspace(-1, 1, 96)],
    "low rank": [4.0] * 4 + [-1.0] * 2 + [0.0] * 60,
}


@pytest.mark.parametrize("ample", [True, False])
@pytest.mark.parametrize("name", REPEATED)
def test_the_trace_counts_copies(name, ample):
    """Mean over independent runs within four standard errors, whichever way the pairs are found."""
    A = symmetric(REPEATED[name])
    budget = AMPLE if ample else 12 * A.dim * 8
    found = [spectrum(A, k=6, steps=40, tolerance=TOLERANCE, memory_budget=budget, seed=seed) for seed in range(40)]
    for power in (1, 2):
        estimates = [A.dim * one.moment(power) for one in found]
        error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
        exact = float((np.array(REPEATED[name]) ** power).sum())
        assert abs(np.mean(estimates) - exact) < 4 * error + 1e-6 * abs(exact)


@pytest.mark.parametrize("probes", [1, 2])
@pytest.mark.parametrize("ample", [True, False])
@pytest.mark.parametrize("values", [[3.0, -2.0, 1.0], [2.0] * 4, [0.0] * 30, [5.0, 4.0] + [0.0] * 30])
def test_where_every_ritz_value_is_a_leading_eigenvalue(values, ample, probes):
    A = symmetric(values)
    k = 6
    budget = AMPLE if ample else (k + 2) * A.dim * 8
    found = spectrum(A, k=k, steps=20, probes=probes, memory_budget=budget)
    check_converged_pairs(A, found, k)
    assert found.converged.all()
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-12)
    assert np.isfinite(linear_curve(found.bulk().nodes, found.bulk().weights).density).all()
    if len(set(values)) < 3:  # no probe is then uncertain
        return
    assert found.trace == pytest.approx(sum(values), abs=1e-9)


@pytest.mark.parametrize("by", ["magnitude", "largest"])
def test_all_copies_of_leading_eigenvalues_are_found(by):
    values = [7.0, 7.0, -7.0, 5.0, 5.0, 5.0, *np.linspace(-2, 2, 200)]
    A = symmetric(values)
    pairs = top_eigenpairs(A, 6, by=by)
    expected = [7, 7, 7, 5, 5, 5] if by == "magnitude" else [7, 7, 5, 5, 5, 2]
    np.testing.assert_allclose(pairs.eigenvalues.abs(), expected, rtol=1e-4)
    assert pairs.converged.all()
    assert pairs.products == A.products


def test_small_eigenvalues_in_single_precision_have_true_residuals():
    """The product's rounding is some 1e-6 of the largest eigenvalue: 1e-4 of it cannot be had to 0.1 %."""
    A = symmetric([1.0, 1e-2, 1e-4, *[1e-7] * 297], torch.float32)
    pairs = top_eigenpairs(A, 3, max_products=50)
    true = (A.A.double() @ pairs.vectors.double() - pairs.vectors.double() * pairs.eigenvalues.double()).norm(dim=0)
    assert (pairs.residuals >= 0.3 * true).all()
    assert torch.equal(pairs.converged, true <= TOLERANCE * pairs.eigenvalues)
    assert pairs.converged[0]


@pytest.mark.parametrize("bulk", ["even", "normal"])
def test_pairs_inside_the_bulk_with_the_smallest_basis_are_leading_or_not_called_converged(bulk):
    size, k = 100, 3
    even = torch.linspace(-0.8, 1, size, dtype=torch.float64)
    values = even if bulk == "even" else torch.randn(size, generator=torch.Generator().manual_seed(1)).double()
    A = Dense(values.diag())
    for seed in range(8):
        pairs = top_eigenpairs(A, k, max_products=300, memory_budget=(k + 2) * size * 8, seed=seed)
        check_converged_pairs(A, pairs, k)
