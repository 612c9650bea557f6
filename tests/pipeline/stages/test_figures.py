"""A figure is drawn of the cells that the task names."""

import pandas as pd
import pytest
from cells import small, store_outcomes

from repro.pipeline import tasks
from repro.pipeline.stages.figures import Draw
from repro.pipeline.stages.select import Select


def test_it_is_drawn_from_what_is_stored_and_anew_each_time(tmp_path):
    store_outcomes(tmp_path, small(), {0: 0.5, 1: 0.3, 2: 0.4})
    cell = small().cell
    tasks.run(Select(root=tmp_path, experiment="x", expected={cell: (0, 1, 2)}, missing_allowed=0))
    task = Draw(root=tmp_path, experiment="x", figure="x1", cells=(cell,))
    tasks.run(task)
    assert (tmp_path / "figures" / "x01.png").exists()
    assert 0.3 in pd.read_csv(tmp_path / "figures" / "x01.csv").select_dtypes("number").round(6).values
    assert not task.finished()


def test_missing_results_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"hessian_spectrum is not measured yet on {small().cell}"):
        tasks.run(Draw(root=tmp_path, experiment="x", figure="3", cells=(small().cell,)))
