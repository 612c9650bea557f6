"""The tables hold what was asked for and what they held before."""

import pytest
from cells import small, store_outcomes

from repro.pipeline import tasks
from repro.pipeline.selection import MissingRunsError
from repro.pipeline.stages.select import TABLES, Select, mend_tables
from repro.storage.runs import read_table

A, B = small(4), small(6, seed=1)


def select(root, *cells, missing_allowed=0):
    expected = {of.cell: (0, 1, 2) for of in cells}
    tasks.run(Select(root=root, experiment="x", expected=expected, missing_allowed=missing_allowed))
    return read_table(root / "selected.csv")


@pytest.fixture
def root(tmp_path):
    store_outcomes(tmp_path, A, {0: 0.5, 1: 0.3, 2: None})
    store_outcomes(tmp_path, B, {0: 0.2, 1: 0.4, 2: 0.4})
    return tmp_path


def test_the_best_of_each_cell(root):
    best = select(root, A, B)
    assert best[["n_per_class", "seed", "lr_index", "test_error"]].values.tolist() == [[4, 0, 1, 0.3], [6, 1, 0, 0.2]]
    assert len(read_table(root / "runs.csv")) == 6


def test_a_part_of_the_grid_keeps_the_others(root):
    select(root, A, B)
    store_outcomes(root, B, {2: 0.1})
    best = select(root, B)
    assert best[["n_per_class", "lr_index"]].values.tolist() == [[4, 1], [6, 2]]
    assert len(read_table(root / "runs.csv")) == 6


@pytest.mark.parametrize("name", TABLES)
def test_a_lost_table_is_made_anew_from_the_trainings(root, name):
    mend_tables(root)  # nothing is selected yet
    assert not (root / name).exists()
    select(root, A, B)
    before = {name: (root / name).read_bytes() for name in TABLES}
    (root / name).unlink()
    mend_tables(root)
    assert {name: (root / name).read_bytes() for name in TABLES} == before
    (root / "runs.csv").unlink()
    assert len(select(root, B)) == 2  # a part of the grid keeps the others


def test_a_missing_run_stops_it(root):
    (root / "runs" / str(A.cell) / "lr001.json").unlink()
    with pytest.raises(MissingRunsError, match=r"mlp/n4 lacks 1 of 3 learning rates \(1\)"):
        select(root, A, B)
    assert not (root / "runs.csv").exists()
    assert select(root, A, B, missing_allowed=1).lr_index.tolist() == [0, 0]


def test_it_is_made_anew_whenever_asked_for(root):
    task = Select(root=root, experiment="x", expected={A.cell: (0, 1, 2)}, missing_allowed=0)
    tasks.run(task)
    assert not task.finished()
