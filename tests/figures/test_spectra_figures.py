"""Figures 3 and 4, x1, x5 and x6 drawn from prescribed spectra: what is where, not how it looks."""

import numpy as np
import pandas as pd
import pytest
import torch

from repro.figures import find_figure
from repro.figures.results import Results
from repro.figures.x01_error_curves import percent
from repro.linalg.density import quadrature
from repro.linalg.operator import Dense
from repro.linalg.spectrum import spectrum
from repro.storage.results import Cell, Result

OUTLIERS = [9.0, 7.0, 5.0]
CELLS = [Cell(data, model, 10) for model in ("vgg11", "resnet18") for data in ("mnist", "cifar10")]


def hessian():
    bulk = np.random.default_rng(0).uniform(-1, 1, 200)
    return Dense(torch.diag(torch.from_numpy(np.concatenate([OUTLIERS, bulk]))))


def titles(cell):
    return {"data_title": cell.data.upper(), "model_title": cell.model.upper()}


def results(measurement, arrays, cells=CELLS):
    made = {"measurement": {"steps": 20, "probes": 2}, "epochs": [0, 40]}
    measured = {measurement: [Result(cell, arrays, made | titles(cell)) for cell in cells]}
    return Results("tiny", measured, pd.DataFrame(), pd.DataFrame())


@pytest.fixture
def spectra():
    found = spectrum(hessian(), k=3, steps=20, probes=2, tolerance=1e-3, memory_budget=10**9, seed=0)
    arrays = {}
    for name in ("train_hessian", "test_hessian", "train_gauss_newton", "train_residual"):
        arrays |= found.arrays(name)
    return results("hessian_spectrum", arrays)


@pytest.mark.parametrize(("number", "rows"), [("3", 2), ("4", 3), ("x6", 4)])
def test_every_cell_has_its_panels(spectra, number, rows):
    figure = find_figure(number).draw(spectra)
    assert len([ax for ax in figure.axes if ax.axison]) == rows * len(CELLS)


@pytest.mark.parametrize(("number", "stems"), [("3", True), ("4", True), ("x6", False)])
def test_outliers_are_stems_only_with_deflation(spectra, number, stems):
    for ax in find_figure(number).draw(spectra).axes:
        drawn = [line.get_xdata() for line in ax.lines if line.get_marker() == "o"]
        if ax.axison:
            assert bool(drawn) == stems
            if stems:
                np.testing.assert_allclose(np.sort(drawn[0]), np.sort(OUTLIERS), atol=1e-3)


def test_the_parts_share_their_eigenvalue_axis(spectra):
    figure = find_figure("4").draw(spectra)
    limits = {ax.get_xlim() for ax in figure.axes if ax.axison}
    assert len(limits) == 1  # all cells have the same spectra here


def test_density_bands_count_the_outliers():
    found = spectrum(hessian(), k=3, steps=20, probes=2, tolerance=1e-3, memory_budget=10**9, seed=0)
    nodes, weights = quadrature(hessian(), 20, 2, 0)
    arrays = found.arrays("deflated") | {"plain_nodes": nodes, "plain_weights": weights}
    figure = find_figure("x5").draw(results("density_probes", arrays, CELLS[:1]))
    mass = {line.get_label(): line.get_ydata() for line in figure.axes[2].lines}
    np.testing.assert_allclose(mass["outliers exact"], 3)
    assert np.ptp(mass["Lanczos alone"]) > 0.01


@pytest.fixture
def swept():
    rows = [
        {**cell._asdict(), "lr_index": i, "lr": 0.1 / 3**i, "epochs": 40, "diverged": i == 0,
         "test_error": 0.9 if i == 0 else 0.2 + 0.01 * i, **titles(cell)}
        for cell in CELLS for i in range(4)
    ]  # fmt: skip
    runs = pd.DataFrame(rows)
    return Results("tiny", {}, runs, runs[runs.lr_index == 1])


def test_error_curves_mark_the_selected_run_and_shade_divergence(swept):
    figure = find_figure("x1").draw(swept)
    ax = next(ax for ax in figure.axes if ax.get_title() == "MNIST,\nVGG11")
    circles = [line for line in ax.lines if line.get_markerfacecolor() == "none"]
    assert [line.get_xydata().tolist() for line in circles] == [[[pytest.approx(0.1 / 3), pytest.approx(0.21)]]]
    (shaded,) = ax.patches
    assert shaded.get_x() < 0.1 < shaded.get_x() + shaded.get_width()
    assert "4 of 16 runs" in find_figure("x1").caption(swept)


def test_ticks_of_errors_that_are_close_differ():
    assert [percent(error) for error in (0.29, 0.335, 0.336, 1.0)] == ["29%", "33.5%", "33.6%", "100%"]


def test_error_curves_before_the_sweep_say_what_to_do():
    with pytest.raises(ValueError, match="has no runs yet"):
        find_figure("x1").caption(Results("tiny", {}, pd.DataFrame(), pd.DataFrame()))
    with pytest.raises(ValueError, match="has no runs yet"):
        find_figure("x1").draw(Results("tiny", {}, pd.DataFrame(), pd.DataFrame()))


@pytest.mark.parametrize("number", ["3", "4", "x6"])
def test_captions_say_what_is_needed(spectra, number):
    caption = find_figure(number).caption(spectra)
    for part in ("MNIST", "VGG11", "10 examples per class", "epoch 40", "Experiment: tiny"):
        assert part in caption
