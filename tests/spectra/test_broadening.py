"""Smoothing of quadratures and distances between spectra."""

import numpy as np
import pytest

from repro.spectra.broadening import broaden, gaussian_width, linear_curve, log_curve, moved, wasserstein

NODES = np.array([[-1.0, 0.0, 2.0], [-0.5, 0.5, 1.0]])
WEIGHTS = np.array([[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]])


def test_the_papers_width():
    assert gaussian_width(128, 3.0) == pytest.approx(2 / (127 * np.sqrt(8 * 1.0986122886681098)))


def test_the_papers_defaults():
    assert linear_curve.__kwdefaults__ == {"kappa": 3.0, "points": 1024, "margin": 0.05, "limits": None}
    log = {"epsilon": 1e-5, "kappa": 1.25, "points": 1024, "margin": 0.05, "limits": None, "per_log": False}
    assert log_curve.__kwdefaults__ == log


def test_broaden_gives_each_node_a_gaussian_of_its_weight():
    grid = np.linspace(-5, 5, 20001)
    curves = broaden([[1.0, -2.0]], [[0.75, 0.25]], grid, 0.1)
    assert curves.shape == (1, 20001)
    right = grid > 0
    mass = np.trapezoid(curves[0, right], grid[right])
    mean = np.trapezoid(curves[0, right] * grid[right], grid[right]) / mass
    variance = np.trapezoid(curves[0, right] * (grid[right] - mean) ** 2, grid[right]) / mass
    assert (mass, mean, variance) == pytest.approx((0.75, 1.0, 0.01), rel=1e-9)
    assert curves.max() == pytest.approx(0.75 / (0.1 * np.sqrt(2 * np.pi)))


def test_linear_curve_is_the_mean_with_one_standard_error():
    curve = linear_curve(NODES, WEIGHTS, points=500, limits=(-2.0, 3.0))
    width = gaussian_width(3, 3.0) * 2.5  # half the range of the grid
    rows = broaden(NODES, WEIGHTS, curve.x, width)
    np.testing.assert_allclose(curve.density, rows.mean(axis=0))
    error = np.abs(rows[0] - rows[1]) / 2  # of the mean of two
    np.testing.assert_allclose(curve.high - curve.density, error, atol=1e-15)
    np.testing.assert_allclose(curve.low, np.maximum(curve.density - error, 0), atol=1e-15)
    single = linear_curve(NODES[0], WEIGHTS[0])
    np.testing.assert_array_equal(single.low, single.high)


def test_a_quadrature_of_one_node_is_a_bump_around_it():
    curve = linear_curve([[3.0]], [[1.0]], limits=(0.0, 6.0))
    assert curve.x[curve.density.argmax()] == pytest.approx(3, abs=0.01)
    assert curve.density.max() == pytest.approx(1 / (3 * gaussian_width(2, 3.0) * np.sqrt(2 * np.pi)), rel=1e-4)


def test_default_range_has_the_margin_and_ignores_padding():
    nodes, weights = np.append(NODES[0], 100.0), np.append(WEIGHTS[0], 0.0)
    curve = linear_curve(nodes, weights, margin=0.05)
    assert (curve.x[0], curve.x[-1]) == pytest.approx((-1.15, 2.15))
    log = log_curve(nodes, weights, epsilon=1e-3, margin=0.05)
    span = np.log(2.001 / 0.001)
    assert np.log([log.x[0], log.x[-1]]) == pytest.approx([np.log(1e-3) - 0.05 * span, np.log(2.001) + 0.05 * span])


@pytest.mark.parametrize("steps", [10, 128, 5000])  # 5000: the paper's width would fall between the grid points
def test_curves_keep_the_mass(steps):
    generator = np.random.default_rng(0)
    nodes = np.pad(generator.normal(size=(2, 10)), ((0, 0), (0, steps - 10)))
    weights = np.pad(np.full((2, 10), 0.1), ((0, 0), (0, steps - 10)))
    curve = linear_curve(nodes, weights, limits=(-12.0, 12.0))
    assert np.trapezoid(curve.density, curve.x) == pytest.approx(1, abs=0.01)
    log = log_curve(nodes, weights, per_log=True, limits=(1e-8, 1e4))
    assert np.trapezoid(log.density, np.log(log.x)) == pytest.approx(1, abs=0.01)
    per_unit = log_curve(nodes, weights, limits=(1e-8, 1e4))
    np.testing.assert_allclose(per_unit.density * per_unit.x, log.density, rtol=1e-12, atol=1e-300)


def test_wasserstein_of_known_pairs():
    assert wasserstein([0.0], [1.0], [3.0]) == pytest.approx(3)
    assert wasserstein([0.0, 1.0], [0.5, 0.5], [0.0, 1.0]) == 0
    assert wasserstein([0.0, 4.0], [0.75, 0.25], [0.0]) == pytest.approx(1)
    assert wasserstein([10.0], [1.0], [-1000.0], epsilon=0.0) == pytest.approx(np.log(100))
    # rows of probes count as their average: half the mass at 0, half at 2, against all at 1
    assert wasserstein([[0.0], [2.0]], [[1.0], [1.0]], [1.0]) == pytest.approx(1)


def test_what_share_of_a_density_moved():
    nodes, weights = np.array([0.0, 1.0]), np.array([1.0, 1.0])
    assert moved(nodes, weights, nodes, 3 * weights) == pytest.approx(0, abs=1e-12)
    assert moved(nodes, np.array([1.0, 0.0]), nodes, np.array([0.0, 1.0])) == pytest.approx(1, rel=0.01)
    assert moved(nodes, np.array([0.6, 0.4]), nodes, weights) == pytest.approx(0.1, rel=0.01)
