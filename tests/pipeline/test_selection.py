"""The best last-epoch test error is kept, whatever ties, gaps and divergence there are."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.pipeline.selection import MissingRunsError, check_complete, select
from repro.storage.results import Cell

A, B = Cell("mnist", "mlp", 10), Cell("mnist", "vgg11", 10)


def runs(*rows, cell=A):
    """Rows (lr_index, test_error, test_loss, diverged) of one cell."""
    names = ["lr_index", "test_error", "test_loss", "diverged"]
    return pd.DataFrame([{**cell._asdict(), **dict(zip(names, row, strict=True))} for row in rows])


def chosen(table):
    return select(table).lr_index.tolist()


def test_lowest_error_then_loss_then_smaller_rate():
    assert chosen(runs((0, 0.3, 1.0, False), (1, 0.2, 9.0, False))) == [1]
    assert chosen(runs((0, 0.2, 1.0, False), (1, 0.2, 0.9, False))) == [1]
    assert chosen(runs((4, 0.2, 1.0, False), (7, 0.2, 1.0, False), (5, 0.2, 1.0, False))) == [7]


def test_a_diverged_run_is_never_preferred():
    assert chosen(runs((0, 0.1, None, True), (1, 0.9, 3.0, False))) == [1]
    assert chosen(runs((0, np.nan, 0.1, False), (1, 0.9, 3.0, False))) == [1]
    assert chosen(runs((0, 0.9, None, True))) == [0]  # the caller sees the flag


def test_a_missing_loss_loses_a_tie():
    assert chosen(runs((0, 0.2, None, False), (1, 0.2, 5.0, False))) == [1]


def test_cells_are_selected_apart():
    table = pd.concat([runs((0, 0.3, 1, False), (1, 0.2, 1, False)), runs((0, 0.1, 1, False), cell=B)])
    best = select(table)
    assert list(zip(best.model, best.lr_index, strict=True)) == [("mlp", 1), ("vgg11", 0)]


ROW = st.tuples(st.sampled_from([0.1, 0.2, 0.9, np.nan]), st.sampled_from([0.5, 1.0, None]), st.booleans())


@given(st.lists(ROW, min_size=1, max_size=8), st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_runs(rows, random):
    table = [(index, *row) for index, row in enumerate(rows)]
    expected = select(runs(*table)).iloc[0]
    random.shuffle(table)
    found = select(runs(*table)).iloc[0]
    assert found.lr_index == expected.lr_index
    usable = [error for _, error, _, diverged in table if not diverged and error == error]
    if usable:
        assert not found.diverged
        assert found.test_error == min(usable)


def test_missing_runs_are_named_and_can_be_tolerated():
    table = runs((0, 0.3, 1, False), (3, 0.2, 1, False))
    expected = [(A, i) for i in range(6)]
    with pytest.raises(MissingRunsError, match=r"mnist/mlp/n10 lacks 4 of 6 learning rates \(1-2, 4-5\)"):
        check_complete(table.to_dict("records"), expected, missing_allowed=3)
    check_complete(table.to_dict("records"), expected, missing_allowed=4)


def test_a_cell_without_any_run_is_never_tolerated():
    with pytest.raises(MissingRunsError, match="lacks 2 of 2"):
        check_complete([], [(B, 0), (B, 1)], missing_allowed=100)
