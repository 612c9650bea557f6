"""Figures 1, 2, 5, 6, x2-x4, x7 and x8 drawn from measurements of a tiny network: what is where, not how it looks."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from repro.figures import find_figure
from repro.figures.results import Results
from repro.figures.x03_tsne import embedding
from repro.measurements import alignment, alignment_dynamics, class_means, dynamics, gauss_newton_knockouts
from repro.network import Network
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
            gauss_newton_knockouts: lanczos, dynamics: lanczos, class_means: {},
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


def panels(figure):
    return [ax for ax in figure.axes if ax.axison and ax.get_label() != "<colorbar>"]


@pytest.mark.parametrize(
    ("number", "of_one", "of_three"),
    [("1", 1, 3), ("2", 4, 12), ("5", 4, 12), ("x2", 4, 12), ("x3", 1, 3), ("x4", 1, 3), ("x7", 3, 9), ("x8", 2, 6)],
)
def test_every_cell_has_its_panels(measured, number, of_one, of_three):
    for cells, expected in ((CELLS[:1], of_one), (CELLS, of_three)):
        results = results_of(measured, cells)
        assert len(panels(find_figure(number).draw(results))) == expected
        assert "Experiment: tiny." in find_figure(number).caption(results)


def test_dynamics_has_a_row_over_epochs_and_one_over_sample_sizes(measured):
    figure = find_figure("6").draw(results_of(measured, CELLS))
    assert len(panels(figure)) == 3 * 3  # mnist: epochs and sizes; cifar10 has one size: epochs alone
    units = [ax.get_xlabel() for ax in panels(figure)[2::3]]
    assert units == ["epoch", "examples per class", "epoch"]
    assert [tick.get_text() for tick in panels(figure)[5].get_xticklabels()] == ["5", "10"]


def test_a_knockout_panel_marks_the_eigenvalues_on_both_curves(measured):
    results = results_of(measured, CELLS[:1])
    arrays = results.of("gauss_newton_knockouts")[0].arrays
    for ax, part in zip(panels(find_figure("5").draw(results)), ("class", "cross", "within", "same")):
        circles = [line.get_xdata() for line in ax.lines if line.get_marker() == "o"]
        for drawn, name in zip(circles, ("full", part), strict=True):
            np.testing.assert_allclose(drawn, np.abs(arrays[f"{name}_eigenvalues"]) + 1e-5)


def test_ranges_of_figure_1_hold_the_eigenvalues_they_name(measured):
    results = results_of(measured, CELLS[:1])
    arrays = results.of("dynamics")[0].arrays
    ax = panels(find_figure("1").draw(results))[0]
    (left,) = [patch.get_x() for patch in ax.patches if patch.get_alpha() == 0.14]  # the outliers' range
    assert left == pytest.approx(np.sort(arrays["gauss_newton_eigenvalues"][-1])[0], rel=0.01)


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
