"""Verdicts on results whose verdict is known."""

import numpy as np
import pandas as pd
import pytest

from repro.report.claims import Claim
from repro.report.stored import Stored, load_stored
from repro.report.verdicts import Verdict, summary, values_of, verdict_table, verdicts
from repro.storage.results import Cell, Result, result_path, save_result

NOTHING = Stored(pd.DataFrame(), pd.DataFrame(), {}, {})
WHY = "training: too short"


def stored(values, seeds=1, model="mlp"):
    """One result per value, of cells of increasing size; `seeds` of them share a cell."""
    cells = [Cell("mnist", model, 1 + at // seeds, at % seeds) for at in range(len(values))]
    results = [Result(cell, {"x": np.array(value)}, {}) for cell, value in zip(cells, values)]
    return NOTHING._replace(results={"weights": results})


def claim(relation=">=", model="", key="x", why=""):
    return Claim("1", "x is large", "x", "weights", lambda a: a[key], relation, 0.5, "13", model, why)


def verdict(one, of):
    (found,) = verdicts(of, [one])
    return found


@pytest.mark.parametrize(
    ("values", "relation", "expected"),
    [
        ([0.5, 0.9], ">=", "holds"),
        ([0.5, 0.5], "<=", "holds"),
        ([0.5, 0.9], "<=", "undecided"),  # the bound is met at the end of the range, and by one of the two
        ([0.6, 0.9], "<=", "does not hold"),
        ([], ">=", "not measured"),
        ([np.nan], ">=", "not measured"),
    ],
)
def test_verdict(values, relation, expected):
    assert verdict(claim(relation), stored(values)).verdict == expected


def test_a_claim_is_undecided_if_one_seed_of_one_network_fails():
    found = verdict(claim(), stored([0.4, 0.6, 0.7, 0.8, 0.9, 1.0], seeds=3))
    assert found.verdict == "undecided"
    assert found.found == "0.75 (0.4 to 1, 6 networks)"
    assert found.why == "Fails on mlp, 1 per class (1 of 3 seeds)"


def test_why_is_told_only_of_claims_that_fail():
    assert verdict(claim(why=WHY), stored([0.9])).why == ""
    assert verdict(claim(why=WHY), stored([0.1])).why == WHY
    assert verdict(claim(why=WHY), stored([0.1, 0.9])).why == f"{WHY}. Fails on mlp, 1 per class"


def test_a_single_value_is_given_alone():
    of_no_network = NOTHING._replace(results={"weights": [Result(None, {"x": np.array(0.75)}, {})]})
    assert verdict(claim(), of_no_network).found == "0.75"


def test_a_claim_about_the_mlp_ignores_other_networks():
    assert values_of(claim(model="mlp"), stored([0.1], model="vgg11")) == []
    assert len(values_of(claim(model="mlp"), stored([0.1], model="mlp"))) == 1


def test_a_result_without_what_the_claim_takes_is_left_out():
    assert values_of(claim(key="y"), stored([0.1])) == []


def test_all_seeds_on_disk_are_taken(tmp_path):
    for seed in (2, 0, 10):
        save_result(result_path(tmp_path, "weights", Cell("mnist", "mlp", 5, seed)), {"x": np.array(seed)}, {})
    assert [value.number for value in values_of(claim(), load_stored(tmp_path))] == [0, 2, 10]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((27, 2, 1, 0), "27 of 30 claims hold, 2 are undecided, 1 does not"),
        ((1, 1, 2, 0), "1 of 4 claims holds, 1 is undecided, 2 do not"),
        ((3, 0, 0, 0), "3 of 3 claims hold"),
        ((3, 0, 1, 26), "3 of 4 claims hold, 1 does not, 26 are not measured"),
    ],
)
def test_the_score_is_one_line(counts, expected):
    kinds = ("holds", "undecided", "does not hold", "not measured")
    found = [Verdict(kind, *[""] * 7) for kind, count in zip(kinds, counts) for _ in range(count)]
    assert summary(found) == expected


def test_the_table_has_a_row_per_claim():
    rows = verdict_table(verdicts(stored([0.9]), [claim(), claim("<=")]))
    assert list(rows.verdict) == ["holds", "does not hold"]
    assert list(rows.figure) == ["13", "13"]
