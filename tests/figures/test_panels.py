"""Panels against spectra whose outliers and bulk are known."""

from dataclasses import replace

import numpy as np
import pytest

from repro.figures import panels, style
from repro.spectra.record import Spectrum

P, OUTLIERS = 1000, np.array([8.0, 6.0, 5.0])


@pytest.fixture
def ax():
    return style.subplots(1, 1)[1][0, 0]


def spectrum(converged=(True, True, True), probes=2):
    """Probes as `spectrum` finds them: the outliers with mass 1/P, then a bulk on [-0.5, 0.5]."""
    bulk = np.stack([np.linspace(-0.5, 0.5, 40), np.linspace(-0.5, 0.5, 40) + 0.01])
    nodes = np.concatenate([np.tile(OUTLIERS, (2, 1)), bulk], axis=1)
    weights = np.concatenate([np.full((2, 3), 1 / P), np.full((2, 40), (1 - 3 / P) / 40)], axis=1)
    return Spectrum(
        nodes[:probes], weights[:probes], OUTLIERS, np.zeros(3), np.array(converged), np.array(converged), P
    )


def curve_of(ax):
    return max(ax.lines, key=lambda line: len(line.get_xdata()))


def test_deflated_spectrum_draws_outliers_as_stems_and_the_bulk_without_them(ax):
    panels.spectrum_panel(ax, spectrum(), color="k")
    circles = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(np.sort(circles[0].get_xdata()), np.sort(OUTLIERS))
    x, density = curve_of(ax).get_data()
    assert x.max() < 1
    assert np.trapezoid(np.nan_to_num(density), x) == pytest.approx(1 - 3 / P, abs=2e-3)


def test_without_deflation_the_density_covers_the_outliers(ax):
    panels.spectrum_panel(ax, spectrum(), color="k", outliers=False)
    x, density = curve_of(ax).get_data()
    assert x.max() > OUTLIERS.max()
    for outlier in OUTLIERS:
        near = np.abs(x - outlier) < 0.6
        assert np.trapezoid(np.nan_to_num(density[near]), x[near]) == pytest.approx(1 / P, rel=0.1)


def test_a_stem_is_as_high_as_a_single_eigenvalue_in_the_density(ax):
    """Put one eigenvalue of mass 1/P into the bulk's quadrature far from the rest: its bump and a stem are level."""
    panels.spectrum_panel(ax, spectrum((True, True, False), probes=1), color="k")  # the last one sets the range
    x, density = curve_of(ax).get_data()
    bump = np.nanmax(density[np.abs(x - OUTLIERS[2]) < 0.5])
    heights = {float(line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "o"}
    assert len(heights) == 1
    assert heights.pop() == pytest.approx(bump, rel=0.02)


def test_a_run_of_one_step_is_drawn_as_one_of_two(ax):
    """As a spectrum that was stopped after its first product."""
    panels.spectrum_panel(ax, Spectrum.density([3.0], [1.0], P), color="k")
    assert ax.get_ylim()[0] == pytest.approx(0.1 / P * np.nanmax(curve_of(ax).get_ydata()), rel=1e-3)


def test_an_outlier_that_has_not_converged_is_an_open_circle(ax):
    panels.spectrum_panel(ax, spectrum((True, True, False)), color="k")
    open_ones = [line for line in ax.lines if line.get_marker() == "o" and line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in open_ones] == [[5.0]]


@pytest.mark.parametrize("per_log", [True, False])
def test_log_spectrum_integrates_to_one(ax, per_log):
    limits = panels.log_limits([spectrum()])
    curve = panels.log_spectrum_panel(ax, spectrum(), limits=limits, color="k", per_log=per_log)
    variable = np.log(curve.x) if per_log else curve.x
    assert np.trapezoid(curve.density, variable) == pytest.approx(1, abs=1e-3)
    assert ("ln" in ax.get_ylabel()) == per_log
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_log_limits_reach_from_epsilon_to_the_largest_of_all():
    larger = replace(spectrum(), nodes=10 * spectrum().nodes)
    low, high = panels.log_limits([spectrum(), larger], epsilon=1e-5)
    assert 1e-6 < low < 1e-5
    assert 80 < high < 200


def test_the_log_spectrum_of_zero_is_a_peak_at_epsilon(ax):
    zero = replace(spectrum(), nodes=np.zeros((2, 43)))
    curve = panels.log_spectrum_panel(ax, zero, limits=panels.log_limits([zero], epsilon=1e-5), color="k")
    assert curve.x[curve.density.argmax()] == pytest.approx(1e-5, rel=0.01)


def test_matrix_colours_are_centred_and_blocks_marked(ax):
    panels.matrix_panel(ax, np.diag([1.0, -3.0, 2.0, 0.5]), blocks=(2, 2))
    assert ax.images[0].get_clim() == (-3.0, 3.0)
    assert len(ax.lines) == 2  # one edge, across and down


def test_depth_curves_share_a_label(ax):
    panels.depth_panel(ax, [1, 2, 3], np.arange(1.0, 7.0).reshape(3, 2), color="k", label="class")
    assert len(ax.lines) == 2
    assert ax.get_legend_handles_labels()[1] == ["class"]


def test_log_spectra_end_at_the_axis_and_not_at_a_slope(ax):
    """Fill and axis share one constant floor, also where a second spectrum of more parameters joins."""
    limits = panels.log_limits([spectrum()])
    panels.log_spectrum_panel(ax, spectrum(), limits=limits, color="k")
    floor = ax.get_ylim()[0]
    (filled,) = ax.collections
    assert filled.get_paths()[0].vertices[:, 1].min() == pytest.approx(floor)
    panels.log_spectrum_panel(ax, replace(spectrum(), dim=10 * P), limits=limits, color="k", fill=False)
    assert ax.get_ylim()[0] == pytest.approx(floor)
