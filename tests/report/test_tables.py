"""The tables of `make show` and `make compare`, of an experiment with prescribed runs and spectra."""

import pandas as pd
import pytest

from repro.report.content import selected_table
from repro.report.stored import load_stored
from repro.report.tables import compare, show, write_tables


def test_a_cell_has_its_selected_run_and_what_it_took(root, cells):
    tables = show(load_stored(root))
    assert sorted(tables["cells"].model) == ["mlp", "vgg11"]
    run = tables["cells"].set_index("model").loc["mlp"]
    assert (run.lr_index, run.epochs, run.trainings, run.sweep_seconds) == (1, 3, 4, 8.0)
    assert (run.lr, run.test_error) == pytest.approx((0.1 / 3, 0.21))
    measured = tables["measurements"]
    assert measured[["n_per_class", "measurement", "seconds"]].values.tolist() == [
        [136, "hessian_spectrum", 1.5],
        [10, "hessian_spectrum", 1.5],
    ]
    time = tables["time"].set_index("stage")
    assert time.loc["sweep", ["pieces", "seconds"]].tolist() == [8, 16.0]
    assert time.loc["measure hessian_spectrum", ["pieces", "seconds"]].tolist() == [2, 3.0]
    assert time.share.sum() == pytest.approx(1)
    assert time.index[0] == "sweep"


def test_without_the_trainings_it_says_what_else_is_known(root):
    """As where selected.csv was copied without runs.csv."""
    stored = load_stored(root)._replace(runs=pd.DataFrame())
    assert [row[4] for row in selected_table(stored).rows] == ["0.0333 (k = 1)"] * 2
    tables = show(stored)
    assert tables["cells"].test_error.notna().all()
    assert tables["cells"][["trainings", "sweep_seconds"]].isna().all(axis=None)
    assert tables["time"].set_index("stage").pieces.to_dict() == {
        "sweep": 0, "retrain": 0, "measure hessian_spectrum": 2,
    }  # fmt: skip


def test_some_cells_alone(root, cells):
    tables = show(load_stored(root), cells[:1])
    assert tables["cells"].model.tolist() == tables["measurements"].model.tolist() == ["vgg11"]
    assert tables["time"].set_index("stage").pieces.to_dict() == {
        "sweep": 4, "retrain": 0, "measure hessian_spectrum": 1,
    }  # fmt: skip


def test_an_experiment_with_nothing_has_empty_tables(tmp_path):
    assert all(table.empty for table in show(load_stored(tmp_path)).values())


def test_two_experiments_side_by_side(root, cells, tmp_path):
    tables = compare({"one": root, "other": tmp_path})
    selected = tables["selected"].set_index("model")
    assert selected.loc["mlp", "test_error one"] == pytest.approx(0.21)
    assert pd.isna(selected.loc["mlp", "test_error other"])
    outliers = tables["outliers"]
    of_mlp = outliers[outliers.model == "mlp"].set_index("k")["eigenvalue one"]
    assert of_mlp.to_dict() == pytest.approx({1: 9.0, 2: 7.0, 3: 5.0})
    claims = tables["claims"]
    assert claims["verdict one"].nunique() > 1
    assert set(claims["verdict other"]) == {"not measured"}


def test_tables_are_written_as_they_are_shown(root, tmp_path):
    tables = show(load_stored(root))
    text = write_tables(tmp_path, "show", tables)
    assert [line.partition("\n")[0] for line in text] == [str(tmp_path / f"show-{name}.csv") for name in tables]
    again = pd.read_csv(tmp_path / "show-cells.csv")
    assert again.test_error.tolist() == tables["cells"].test_error.tolist()
    assert "hessian_spectrum" in text[1]
