"""Figures 1, 2, 5, 6, x2-x4 and x7-x10 drawn from measurements of a tiny network: what is where, not how it looks."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from torch import nn

from repro.figures import counts, find_figure
from repro.figures.results import Results
from repro.figures.style import COLORS
from repro.figures.x03_tsne import embedding
from repro.measurements import (
    alignment,
    alignment_dynamics,
    class_means,
    dynamics,
    exact_spectrum,
    gauss_newton_knockouts,
)
from repro.network import Network
from repro.spectra.exact import ExactSpectrum
from repro.spectra.record import Spectrum
from repro.storage.results import Cell, Result

C, N = 3, 30
CELLS = [Cell("mnist", "mlp", 5), Cell("mnist", "mlp", 10), Cell("cifar10", "mlp", 10)]


@pytest.fixture(scope="module")
def measured():
    """Each measurement on a small network with random weights, two 'epochs' of them."""

    def network(epoch):
        torch.manual_seed(epoch)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, C)).double().eval()

    with torch.random.fork_rng():
        data = [(torch.randn(N, 6, dtype=torch.float64), torch.arange(N) % C)]
        run = Network(network(1), data, checkpoints={0: network(0), 1: network(1)})
        lanczos, pairs = {"steps": 20}, {"tolerance": 1e-6, "max_products": 60}
        settings = {
            gauss_newton_knockouts: lanczos, dynamics: lanczos, class_means: {}, exact_spectrum: {},
            alignment_dynamics: pairs, alignment: pairs,
        }  # fmt: skip
        found = {
            module.__name__.rpartition(".")[2]: module.measure(run, module.Settings(**given))
            for module, given in settings.items()
        }
    used = {"measurement": {"knockout": "subtraction"}, "epochs": [0, 1]}
    return {name: [Result(cell, arrays, used) for cell in CELLS] for name, arrays in found.items()}


def results_of(measured, cells):
    chosen = {name: [r for r in found if r.cell in cells] for name, found in measured.items()}
    return Results("tiny", chosen, pd.DataFrame(), pd.DataFrame())


def by_lanczos(measured, cells, fallback):
    """As if the cells were too large for the exact spectrum."""
    return results_of({**measured, "exact_spectrum": measured[fallback]}, cells)


def panels(figure):
    return [ax for ax in figure.axes if ax.axison and ax.get_label() != "<colorbar>"]


@pytest.mark.parametrize(
    ("number", "of_one", "of_three"),
    [
        ("1", 1, 3),
        ("2", 4, 12),
        ("5", 4, 12),
        ("x2", 4, 12),
        ("x3", 1, 3),
        ("x4", 1, 3),
        ("x7", 3, 9),
        ("x8", 2, 6),
        ("x9", 2, 6),
        ("x10", 3, 7),
    ],
)
def test_every_cell_has_its_panels(measured, number, of_one, of_three):
    for cells, expected in ((CELLS[:1], of_one), (CELLS, of_three)):
        results = results_of(measured, cells)
        assert len(panels(find_figure(number).draw(results))) == expected
        assert "Experiment: tiny." in find_figure(number).caption(results)


@pytest.mark.parametrize(
    ("number", "fallback"), [("1", "dynamics"), ("5", "gauss_newton_knockouts"), ("6", "dynamics")]
)
def test_cells_that_are_too_large_are_drawn_from_lanczos_and_the_caption_says_so(measured, number, fallback):
    figure, exact = find_figure(number), results_of(measured, CELLS)
    assert figure.fallback == fallback
    estimated = by_lanczos(measured, CELLS, fallback)
    assert len(panels(figure.draw(estimated))) == len(panels(figure.draw(exact)))
    assert "too many examples" in figure.caption(estimated)
    assert "counted" not in figure.caption(estimated)
    assert "too many examples" not in figure.caption(exact)
    mixed = results_of(measured, CELLS[:2])
    mixed.of("exact_spectrum")[1] = measured[fallback][1]
    assert figure.draw(mixed)
    assert "too many examples" in figure.caption(mixed)
    assert "counted" in figure.caption(mixed)


@pytest.mark.parametrize("number", ["x9", "x10"])
def test_without_an_exact_spectrum_there_is_a_sentence(measured, number):
    large = [Result(cell, {"too_large": np.array(10**6)}, {}) for cell in CELLS]
    with pytest.raises(ValueError, match=r"raise measurements\.exact_spectrum\.limit, or show smaller samples"):
        find_figure(number).draw(results_of({**measured, "exact_spectrum": large}, CELLS))


def test_histograms_count_every_eigenvalue(measured):
    results = results_of(measured, CELLS[:1])
    values = results.of("exact_spectrum")[0].arrays["eigenvalues"]
    edges = counts.bins(values[0])
    assert counts.count(values, edges).sum() == (values >= edges[0]).sum()
    known = np.logspace(0, -2, 200)  # as a quadrature: the estimate is the same count, but for smoothing
    x, per_bin = counts.estimated_count(Spectrum.exact(known, k=0, dim=200, length=200), counts.bins(10.0))
    width = np.log(counts.bins(10.0)[1] / counts.bins(10.0)[0])
    assert np.trapezoid(per_bin / width, np.log(x)) == pytest.approx(200, rel=0.02)


def test_x10_shows_every_eigenvalue_in_the_colours_of_its_shares(measured):
    results = results_of(measured, CELLS[1:2])
    arrays = results.of("exact_spectrum")[0].arrays
    main = panels(find_figure("x10").draw(results))[0]
    offsets = np.ma.getdata(main.collections[0].get_offsets())
    shown = arrays["eigenvalues"] > max(2e-6 * arrays["eigenvalues"][0], arrays["resolution"])
    np.testing.assert_allclose(
        np.sort(offsets[:, 1])[::-1], arrays["eigenvalues"][shown] / arrays["eigenvalues"][0], rtol=1e-12
    )
    pure = {**arrays, "share_class": np.ones(3), "share_cross": np.zeros(3), "share_within": np.zeros(3)}
    pure |= {"share_same": np.zeros(3), "eigenvalues": np.ones(3)}
    np.testing.assert_allclose(counts.mixed_colors(ExactSpectrum(pure)), [to_rgb(COLORS["class"])] * 3)


def test_dynamics_has_a_row_over_epochs_and_one_over_sample_sizes(measured):
    figure = find_figure("6").draw(results_of(measured, CELLS))
    assert len(panels(figure)) == 3 * 3  # mnist: epochs and sizes; cifar10 has one size: epochs alone
    units = [ax.get_xlabel() for ax in panels(figure)[2::3]]
    assert units == ["epoch", "examples per class", "epoch"]
    assert [tick.get_text() for tick in panels(figure)[5].get_xticklabels()] == ["5", "10"]


def test_a_knockout_panel_marks_the_eigenvalues_on_both_curves(measured):
    results = by_lanczos(measured, CELLS[:1], "gauss_newton_knockouts")
    arrays = results.of("gauss_newton_knockouts")[0].arrays
    for ax, part in zip(panels(find_figure("5").draw(results)), ("class", "cross", "within", "same")):
        circles = [line.get_xdata() for line in ax.lines if line.get_marker() == "o"]
        for drawn, name in zip(circles, ("full", part), strict=True):
            np.testing.assert_allclose(drawn, np.abs(arrays[f"{name}_eigenvalues"]) + 1e-5)


def test_ranges_of_figure_1_hold_the_eigenvalues_they_name(measured):
    smallest = measured["exact_spectrum"][0].arrays["eigenvalues"][C - 1]
    for results in (results_of(measured, CELLS[:1]), by_lanczos(measured, CELLS[:1], "dynamics")):
        ax = panels(find_figure("1").draw(results))[0]
        (left,) = [patch.get_x() for patch in ax.patches if patch.get_alpha() == 0.14]  # the outliers' range
        assert left == pytest.approx(smallest, rel=0.01)


def test_shares_are_stacked_to_one(measured):
    ax = panels(find_figure("x2").draw(results_of(measured, CELLS[:1])))[1]  # G: no negative share but for rounding
    tops = np.array([bar.get_y() + bar.get_height() for bar in ax.patches]).reshape(5, -1)
    np.testing.assert_allclose(tops.max(axis=0), 1, atol=1e-6)


def test_x7_shows_each_eigenvector_at_each_epoch_and_shares_that_add_up(measured):
    results = results_of(measured, CELLS[:1])
    overlap = results.of("alignment_dynamics")[0].arrays["overlap_class"]
    projections, angles, shares = panels(find_figure("x7").draw(results))
    dots = np.concatenate([line.get_ydata() for line in projections.lines if line.get_linestyle() == "None"])
    np.testing.assert_allclose(np.sort(dots), np.sort(overlap.ravel()))
    assert [tick.get_text() for tick in angles.get_xticklabels()] == ["0", "1"]
    np.testing.assert_allclose(sum(np.array([bar.get_height() for bar in bars]) for bars in shares.containers), 1)


def test_x8_ranks_all_eigenvalues_and_says_that_classes_are_few(measured):
    results = results_of(measured, CELLS[:1])
    arrays = results.of("class_means")[0].arrays
    ranked, cosines = panels(find_figure("x8").draw(results))
    for line, part in zip(ranked.lines, ("class", "cross")):
        values = arrays[f"{part}_part"]
        np.testing.assert_allclose(line.get_ydata(), values[values > 1e-10 * arrays["class_part"].max()])
    np.testing.assert_allclose(np.diag(np.asarray(cosines.images[0].get_array())), 1, atol=1e-9)
    assert f"Only {C} classes" in find_figure("x8").caption(results)


def test_cosines_of_class_means_have_a_unit_diagonal(measured):
    figure = find_figure("2").draw(results_of(measured, CELLS[:1]))
    for ax, size in zip(panels(figure)[1:], (C, C * (C - 1), C * (C - 1))):
        matrix = np.asarray(ax.images[0].get_array())
        assert matrix.shape == (size, size)
        np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-9)


def test_embedding_keeps_clusters_together():
    """Two tight groups far apart: nearest neighbours stay within their group."""
    points = np.random.default_rng(0).normal(size=(20, 5)) + 50 * np.repeat([[0], [1]], 10, axis=0)
    flat = embedding(points @ points.T, perplexity=4)
    distance = np.linalg.norm(flat[:, None] - flat, axis=2) + 1e9 * np.eye(20)
    assert (distance.argmin(axis=1) // 10 == np.arange(20) // 10).all()


def test_of_one_class_alone_there_are_ranks_and_no_blocks():
    torch.manual_seed(0)
    network = Network(nn.Linear(6, C).double().eval(), (torch.randn(N, 6, dtype=torch.float64), torch.arange(N) % C))
    arrays = class_means.measure(network, class_means.Settings(classes=[2]))
    result = Results("tiny", {"class_means": [Result(CELLS[0], arrays, {})]}, pd.DataFrame(), pd.DataFrame())
    curve = find_figure("x8").draw(result).axes[0].get_lines()[0]
    np.testing.assert_array_equal(curve.get_ydata(), arrays["class_part"])
    for number in ("2", "x3"):
        with pytest.raises(KeyError, match="a second class"):
            find_figure(number).draw(result)
