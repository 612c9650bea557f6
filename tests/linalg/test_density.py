"""Spectral measures: masses, moments, recovery of prescribed spectra, Algorithms 3 and 4, the log spectrum."""

import numpy as np
import pytest
import torch

from repro.linalg.density import lanczos_approx_spec, log_spectrum, low_rank_deflation, normalization, quadrature
from repro.linalg.lanczos import fast_lanczos
from repro.linalg.operator import Dense
from repro.linalg.probe import random_unit_vector
from repro.linalg.spectrum import spectrum
from repro.linalg.subspace import subspace_iteration
from repro.spectra.broadening import wasserstein

P = 300
OUTLIERS = [12.0, -9.0, 7.0, 5.0, -4.0]
AMPLE = 1 << 30


def symmetric(eigenvalues, dtype=torch.float64, seed=0):
    size = len(eigenvalues)
    U = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))).Q
    return Dense(((U * torch.as_tensor(eigenvalues, dtype=torch.float64)) @ U.T).to(dtype))


def spread():
    bulk = torch.randn(P - len(OUTLIERS), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / 5
    return torch.cat([torch.tensor(OUTLIERS, dtype=torch.float64), bulk])


def run(A, **changes):
    arguments = {"k": 5, "steps": 40, "probes": 3, "tolerance": 1e-3, "memory_budget": AMPLE, "seed": 0} | changes
    return spectrum(A, **arguments)


def distance(spectrum, exact):
    return wasserstein(spectrum.nodes, spectrum.weights, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outliers_and_masses(dtype):
    A = symmetric(spread(), dtype)
    result = run(A)
    torch.testing.assert_close(torch.from_numpy(result.eigenvalues), torch.tensor(OUTLIERS).double(), rtol=1e-5, atol=0)
    assert result.converged.all()
    assert result.nodes.shape == result.weights.shape == (3, 40)
    np.testing.assert_allclose(result.weights.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(result.weights[:, :5], 1 / P, rtol=1e-12)
    np.testing.assert_allclose(result.nodes[:, :5], np.tile(OUTLIERS, (3, 1)), rtol=1e-5)
    assert np.abs(result.nodes[:, 5:]).max() < 2  # the outliers appear once
    assert result.vectors.dtype == dtype
    assert 40 + 2 * 35 < result.products == A.products <= 40 + 2 * 35 + 1 + 16  # the runs, and what confirms the pairs
    assert result.dim == P


def test_mean_over_an_orthonormal_basis_of_probes_has_the_exact_moments():
    """Averaged over start vectors that form a basis, <v, A^j v> is tr A^j / P, and M nodes get degree 2M - 1 right."""
    A = symmetric(spread())
    basis = torch.linalg.qr(torch.randn(P, P, dtype=torch.float64, generator=torch.Generator().manual_seed(2))).Q
    moments = np.zeros(4)
    for v in basis.T:
        ritz = fast_lanczos(A, 2, start=v)
        moments += [float(ritz.weights @ ritz.values**j) / P for j in range(4)]
    exact = [float((spread() ** j).mean()) for j in range(4)]
    np.testing.assert_allclose(moments, exact, rtol=1e-10, atol=1e-12)


def test_the_first_probe_has_the_moments_of_its_start():
    A = symmetric(spread())
    result = run(A, k=0, probes=1)
    v = random_unit_vector(A, torch.Generator().manual_seed(0))
    power = v
    for degree in range(6):
        assert result.weights[0] @ result.nodes[0] ** degree == pytest.approx(float(v @ power), rel=1e-10)
        power = A @ power


def test_moments_in_expectation_and_what_deflation_gains():
    """Means over many probes within four standard errors; known outliers take most of the variance away."""
    errors = {}
    for k in (0, 5):
        result = run(symmetric(spread()), k=k, steps=20, probes=200)
        for power in (1, 2):
            estimates = (result.weights * result.nodes**power).sum(axis=1)
            errors[k, power] = error = estimates.std(ddof=1) / np.sqrt(len(estimates))
            assert abs(estimates.mean() - float((spread() ** power).mean())) < 4 * error
    assert errors[5, 1] < 0.3 * errors[0, 1]
    assert errors[5, 2] < 0.02 * errors[0, 2]


def test_deflated_trace_is_right_even_if_the_pairs_are_inexact():
    A = symmetric(spread())
    result = run(A, tolerance=0.3, steps=8, k=3, probes=400)
    assert result.converged.any()
    assert (result.residuals > 1e-4 * np.abs(result.eigenvalues)).any()
    estimates = (result.weights[1:] * result.nodes[1:]).sum(axis=1)
    error = estimates.std(ddof=1) / np.sqrt(len(estimates))
    assert abs(estimates.mean() - float(spread().mean())) < 4 * error


def test_unconverged_pairs_are_not_deflated(caplog):
    A = symmetric(spread())
    run(A, probes=1)
    assert "not converged" not in caplog.text
    result = run(A, k=12, steps=14, tolerance=1e-8, probes=2)
    count = int(result.converged.sum())
    assert 0 < count < 12
    assert f"{12 - count} of 12 eigenpairs not converged" in caplog.text
    values, vectors = torch.from_numpy(result.eigenvalues), result.vectors
    torch.testing.assert_close(
        torch.from_numpy(result.residuals), (A @ vectors - vectors * values).norm(dim=0), atol=1e-10, rtol=0
    )
    np.testing.assert_allclose(result.weights[:, :count], 1 / P, rtol=1e-12)
    np.testing.assert_allclose(result.weights.sum(axis=1), 1, rtol=1e-12)
    assert (result.weights[0, count:] > 2 / P).any()


def test_density_approaches_the_exact_spectrum_with_probes_and_deflation():
    A, exact = symmetric(spread()), spread().numpy()
    distances = {
        (k, probes): np.mean([distance(run(A, k=k, probes=probes, seed=seed), exact) for seed in range(10)])
        for k in (0, 5)
        for probes in (1, 8)
    }
    assert distances[5, 8] < 0.6 * distances[5, 1]
    assert distances[5, 1] < 0.6 * distances[0, 1]
    assert distances[5, 8] < 0.02


def test_full_depth_finds_every_eigenvalue():
    result = run(symmetric(spread()), steps=P, probes=2)
    for nodes in result.nodes:
        np.testing.assert_allclose(np.sort(nodes), np.sort(spread().numpy()), atol=1e-10)


def test_early_stop_is_padded_with_zero_weights():
    values = torch.cat([torch.tensor([3.0, -2.0, 1.0]), torch.zeros(P - 3)])
    result = run(symmetric(values), k=3, steps=20, probes=2)
    np.testing.assert_allclose(result.weights.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose((result.weights * result.nodes).sum(axis=1), 2 / P, rtol=1e-9)
    assert result.products < 12


def test_small_memory_budget_gives_the_same_spectrum():
    A = symmetric(spread())
    tight = run(A, memory_budget=12 * P * 8, steps=60)
    free = run(A, steps=60)
    np.testing.assert_allclose(tight.eigenvalues, free.eigenvalues, rtol=1e-5)
    assert tight.converged.all()
    np.testing.assert_allclose(tight.weights.sum(axis=1), 1, rtol=1e-12)
    assert wasserstein(tight.nodes, tight.weights, spread().numpy()) < 0.05
    assert run(A, memory_budget=P * 8, k=0).nodes.shape == (3, 40)
    np.testing.assert_allclose(run(A, memory_budget=12 * P * 8, k=1).eigenvalues, [12], rtol=1e-5)


def test_copies_of_the_leading_eigenvalues_are_found_and_stay_in_the_density():
    values = spread()
    values[1] = 12.0
    result = run(symmetric(values), k=3, probes=1)
    np.testing.assert_allclose(result.eigenvalues, [12, 12, 7], rtol=1e-5)
    assert result.deflated.tolist() == [True, True, True]  # both copies are known, and nothing else is as large
    result = run(symmetric(values), k=1, probes=1)
    np.testing.assert_allclose(result.eigenvalues, [12], rtol=1e-5)
    assert result.converged.tolist() == [True]
    assert result.deflated.tolist() == [False]
    values[4] = 7.0
    result = run(symmetric(values), k=4, probes=2)
    np.testing.assert_allclose(result.eigenvalues, [12, 12, 7, 7], rtol=1e-5)


def test_stored_arrays():
    arrays = run(symmetric(spread())).arrays("hessian")
    assert sorted(arrays) == [
        f"hessian_{name}" for name in ("converged", "deflated", "dim", "eigenvalues", "nodes", "residuals", "weights")
    ]
    assert arrays["hessian_dim"] == P
    assert arrays["hessian_converged"].dtype == bool


@pytest.mark.parametrize(("changes", "sentence"), [({"k": 40}, "more steps than pairs"), ({"probes": 0}, "0 probes")])
def test_impossible_requests(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(symmetric(spread()), **changes)


def test_normalization_maps_the_spectrum_into_the_unit_interval_with_the_margin():
    center, half = normalization(symmetric(spread()))
    low, high = -9.0, 12.0
    assert center == pytest.approx((low + high) / 2, abs=1e-8)
    assert half == pytest.approx((high - low) * (0.5 + 0.05), rel=1e-8)
    x = lanczos_approx_spec(symmetric(spread()), margin=0.2).curve.x
    assert (x[0], x[-1]) == pytest.approx((low - 0.2 * 21, high + 0.2 * 21), rel=1e-8)


def test_the_defaults_are_the_papers():
    def defaults(function):
        return {name: value for name, value in function.__kwdefaults__.items() if name != "seed"}

    smoothing = {"points": 1024, "probes": 1, "margin": 0.05}
    assert defaults(normalization) == {"steps": 64, "margin": 0.05}
    assert defaults(lanczos_approx_spec) == smoothing | {"steps": 128, "kappa": 3.0, "normalization_steps": 64}
    assert defaults(log_spectrum) == smoothing | {"steps": 2048, "kappa": 1.25, "epsilon": 1e-5, "per_log": False}
    assert defaults(subspace_iteration) == {"iterations": 128, "tolerance": 1e-3}
    assert defaults(low_rank_deflation) == {"iterations": 128}


def test_normalization_bounds_the_spectrum_after_few_steps():
    """Unconverged Ritz values alone would lie inside; the residuals widen the range beyond the true ends."""
    values = torch.linspace(-1, 1, P, dtype=torch.float64)
    ritz = fast_lanczos(symmetric(values), 4, seed=0)
    assert ritz.values[-1] < 0.95
    center, half = normalization(symmetric(values), steps=4, margin=0.0)
    assert center - half <= -1
    assert center + half >= 1


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_spectrum_of_one_value_is_a_bump_around_it(value):
    density = lanczos_approx_spec(symmetric([value] * P), probes=2)
    curve = density.curve
    assert np.trapezoid(curve.density, curve.x) == pytest.approx(1, abs=1e-3)
    assert curve.x[curve.density.argmax()] == pytest.approx(value, abs=0.01)


def test_lanczos_approx_spec_integrates_to_one_and_uses_the_stated_width():
    A = symmetric([2.0, *[0.0] * (P - 1)])
    density = lanczos_approx_spec(A, probes=3)
    x = density.curve.x
    assert len(x) == 1024
    assert np.trapezoid(density.curve.density, x) == pytest.approx(1, abs=1e-3)
    half_range = (x[-1] - x[0]) / 2
    assert half_range == pytest.approx(2 * 0.55, rel=1e-6)
    np.testing.assert_array_equal(density.weights[:, 2:], 0)  # rank one: exhausted after two steps
    near_zero = np.abs(x) < 0.1
    mass = density.curve.density[near_zero]
    width = np.sqrt(mass @ x[near_zero] ** 2 / mass.sum())
    assert width == pytest.approx(2 / (127 * np.sqrt(8 * np.log(3))) * half_range, rel=1e-3)


def test_low_rank_deflation():
    A = symmetric(spread())
    outliers, density = low_rank_deflation(A, 5, iterations=60, steps=64, probes=4)
    torch.testing.assert_close(outliers.eigenvalues, torch.tensor(OUTLIERS, dtype=torch.float64), rtol=1e-8, atol=0)
    assert A.products == 5 * 60 + 64 + 4 * 64
    assert density.curve.x[-1] < 1.1 * float(spread()[5:].abs().max())  # normalised on the deflated operator
    assert np.trapezoid(density.curve.density, density.curve.x) == pytest.approx(1, abs=2e-3)
    bulk = np.append(spread()[5:].numpy(), np.zeros(5))
    assert wasserstein(density.nodes, density.weights, bulk) < 0.02


def test_log_spectrum_integrates_to_one_in_both_units():
    values = torch.cat([torch.logspace(-2, 1, P - 100, dtype=torch.float64), torch.zeros(100)])
    A = symmetric(values)
    per_log = log_spectrum(A, steps=128, probes=5, per_log=True)
    per_unit = log_spectrum(A, steps=128, probes=5)
    x = per_log.curve.x
    np.testing.assert_allclose(per_unit.curve.density * x, per_log.curve.density, rtol=1e-12)
    assert np.trapezoid(per_log.curve.density, np.log(x)) == pytest.approx(1, abs=5e-3)
    assert np.trapezoid(per_unit.curve.density, x) == pytest.approx(1, abs=2e-2)
    zeros = x < 3e-5  # the null space shows as a peak at epsilon = 1e-5 that holds its third of the mass
    share = np.trapezoid(per_log.curve.density[zeros], np.log(x[zeros]))
    assert share == pytest.approx(1 / 3, abs=0.07)


def test_quadrature_rows_are_independent_probes():
    nodes, weights = quadrature(symmetric(spread()), 10, 3, seed=0)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    assert not np.allclose(nodes[0], nodes[1])
    again, _ = quadrature(symmetric(spread()), 10, 1, seed=0)
    np.testing.assert_array_equal(nodes[:1], again)
