"""Stored trainings: refusal of other settings, damage, and the table of all."""

import pandas as pd
import pytest

from repro.storage.files import write_json
from repro.storage.identity import digest
from repro.storage.results import Cell
from repro.storage.runs import (
    CELL_COLUMNS,
    at_edge_of_grid,
    on_disk,
    read_record,
    read_run,
    read_table,
    rows,
    run_finished,
    run_path,
    selected_folder,
    write_run,
    write_table,
)

WANTED = {"data": {"name": "mnist"}, "training": {"epochs": 3, "seed": 0}, "lr": 0.1, "version": 1}
METRICS = {"diverged": False, "train_loss": 0.1, "train_error": 0.0, "test_loss": 0.5, "test_error": 0.2}
MADE = {"seconds": 1.0, "device": "cpu", "data_title": "MNIST", "model_title": "MLP (width 0.5)"}
CELL = Cell("mnist", "mlp", 10)


def stored(path, wanted=WANTED):
    write_run(path, wanted, {"metrics": METRICS, "history": {}}, MADE)
    return path


def test_a_stored_run_is_finished_and_read_back(tmp_path):
    path = stored(tmp_path / "lr003.json")
    assert run_finished(path, WANTED)
    assert not run_finished(tmp_path / "lr004.json", WANTED)
    assert read_run(path)["metrics"] == METRICS
    assert read_run(path)["digest"] == digest(WANTED)


def test_other_settings_are_refused_with_both_values(tmp_path):
    path = stored(tmp_path / "lr003.json")
    with pytest.raises(ValueError, match=r"training\.epochs = 3, asked for 5.*force=true"):
        run_finished(path, WANTED | {"training": {"epochs": 5, "seed": 0}})


def test_a_rate_that_differs_by_rounding_is_the_same_run(tmp_path):
    path = stored(tmp_path / "lr003.json")
    assert run_finished(path, WANTED | {"lr": 0.1 * (1 + 1e-12)})
    with pytest.raises(ValueError, match=r"lr = 0\.1, asked for 0\.1001"):
        run_finished(path, WANTED | {"lr": 0.1001})


@pytest.mark.parametrize(
    "damage", [lambda text: text[:40], lambda text: text.replace('"seed": 0', '"seed": 1'), lambda _: "[]"]
)
def test_damaged_or_tampered_files_are_named(tmp_path, damage):
    path = stored(tmp_path / "lr003.json")
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=r"lr003\.json is damaged.*delete it"):
        read_run(path)


def test_seeds_lie_beside_the_runs_of_seed_zero(tmp_path):
    assert run_path(tmp_path, CELL, 7) == tmp_path / "runs/mnist/mlp/n10/lr007.json"
    assert run_path(tmp_path, CELL._replace(seed=2), 7) == tmp_path / "runs/mnist/mlp/n10/seed2/lr007.json"
    assert selected_folder(tmp_path, CELL._replace(seed=2)) == tmp_path / "selected/mnist/mlp/n10/seed2"


def test_the_table_has_a_row_per_stored_training(tmp_path):
    seeded = CELL._replace(seed=2)
    paths = [(CELL, 3), (CELL, 4), (seeded, 3)]
    for cell, index in (paths[0], paths[2]):
        stored(run_path(tmp_path, cell, index))
    found = pd.DataFrame(rows((cell, index, run_path(tmp_path, cell, index)) for cell, index in paths))
    assert found[[*CELL_COLUMNS, "lr_index"]].values.tolist() == [
        ["mnist", "mlp", 10, 0, 3],
        ["mnist", "mlp", 10, 2, 3],
    ]
    row = found.iloc[0]
    assert (row.lr, row.epochs, row.test_error, row.seconds, row.digest) == (0.1, 3, 0.2, 1.0, digest(WANTED))
    assert (row.data_title, row.model_title) == ("MNIST", "MLP (width 0.5)")


def test_selected_rates_at_the_edge_are_named():
    made = {"data_title": "MNIST", "model_title": "MLP"}
    rates = {0: (0.4, 0.2, 0.1), 1: (0.4, 0.2, 0.1), 2: (0.4, 0.2, 0.1), 3: (0.2,)}
    runs = pd.DataFrame(
        [{**CELL._replace(seed=seed)._asdict(), "lr": lr, **made} for seed, of in rates.items() for lr in of]
    )
    selected = runs.iloc[[0, 4, 8, 9]]  # the highest, one between, the lowest, the only one
    assert at_edge_of_grid(runs, selected) == [
        "MNIST, MLP, 10 per class: the selected learning rate 0.4 is the highest of 3",
        "MNIST, MLP, 10 per class, seed 2: the selected learning rate 0.1 is the lowest of 3",
    ]


def test_nothing_trained_has_no_edge():
    assert at_edge_of_grid(pd.DataFrame(), pd.DataFrame()) == []


def test_the_record_of_a_selected_network(tmp_path):
    with pytest.raises(FileNotFoundError, match="no retrained network yet; run `make retrain` first"):
        read_record(tmp_path)
    write_json(tmp_path / "run.json", {"epochs": [0]})
    assert read_record(tmp_path) == {"epochs": [0]}


def test_trainings_are_found_on_disk_in_the_order_of_the_grid(tmp_path):
    paths = [
        (cell, index, run_path(tmp_path, cell, index)) for cell in (CELL, CELL._replace(seed=2)) for index in (3, 12)
    ]
    for _, _, path in reversed(paths):
        stored(path)
    stored(tmp_path / "runs" / "lr001.json")  # of no cell
    stored(tmp_path / "runs" / str(CELL) / "lr003.json.damaged-1")
    assert on_disk(tmp_path) == paths


def test_a_table_comes_back_and_proves_its_content(tmp_path):
    path = tmp_path / "runs.csv"
    assert read_table(path).empty
    written = [{"lr": 0.1, "title": "a, # and 'b'"}, {"lr": None, "title": "c"}]
    write_table(path, written)
    pd.testing.assert_frame_equal(read_table(path), pd.DataFrame(written))
    pd.testing.assert_frame_equal(pd.read_csv(path).iloc[:-1].astype({"lr": float}), pd.DataFrame(written))
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(ValueError, match=r"runs\.csv is damaged"):
        read_table(path)
