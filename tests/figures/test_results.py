"""What a figure is given, in the experiment's order, and what it is told when results are missing."""

import numpy as np
import pytest

from repro.figures.results import Results, is_exact
from repro.storage.results import Cell, result_path, save_result
from repro.storage.runs import write_table

CELLS = [Cell("mnist", "vgg11", n) for n in (136, 10)]


@pytest.fixture
def root(tmp_path):
    for cell in CELLS:
        made = {"data_title": "MNIST", "model_title": "VGG11 (width 0.125)", "epochs": [0, 5, 40]}
        save_result(result_path(tmp_path, "weights", cell), {"n": np.array(cell.n_per_class)}, made)
    save_result(result_path(tmp_path, "synthetic", None), {"n": np.array(0)}, {})
    return tmp_path


def test_results_come_in_the_order_of_the_cells(root):
    results = Results.load(root, ["weights"], CELLS)
    assert [int(result.arrays["n"]) for result in results.of("weights")] == [136, 10]


def test_a_measurement_of_no_network_is_a_single_result(root):
    (result,) = Results.load(root, ["synthetic"], []).of("synthetic")
    assert result.cell is None


def test_the_end_of_a_caption_says_data_network_size_epoch_and_experiment(root):
    results = Results.load(root, ["weights", "synthetic"], CELLS[:1], "embedded")
    assert results.where("weights") == (
        "MNIST, VGG11 (width 0.125), 136 examples per class, epoch 40. Experiment: embedded."
    )
    assert results.where("synthetic") == "No network is involved. Experiment: embedded."


def test_missing_results_are_named(root):
    with pytest.raises(FileNotFoundError, match="weights is not measured yet on mnist/mlp/n10"):
        Results.load(root, ["weights"], [*CELLS, Cell("mnist", "mlp", 10)])


def test_a_cell_too_large_for_exact_eigenvalues_is_drawn_from_the_fallback(root):
    large, small = CELLS
    for cell, arrays in ((large, {"too_large": np.array(1360)}), (small, {"share_class": np.zeros(3)})):
        save_result(result_path(root, "exact_spectrum", cell), arrays, {})
    found = Results.load(root, ["exact_spectrum"], CELLS, fallback="weights").of("exact_spectrum")
    assert [is_exact(result) for result in found] == [False, True]
    assert int(found[0].arrays["n"]) == large.n_per_class


def test_an_undeclared_measurement_is_refused(root):
    with pytest.raises(ValueError, match="'kfac' is not among the measurements this figure declares"):
        Results.load(root, ["weights"], CELLS).of("kfac")


def test_tables_are_empty_before_the_sweep_and_read_after_it(root):
    assert Results.load(root, [], []).runs.empty
    write_table(root / "runs.csv", [{"lr": 0.1}])
    assert Results.load(root, [], []).runs.lr.tolist() == [0.1]
