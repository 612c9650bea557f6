"""Claims on results whose verdict is known."""

import numpy as np
import pandas as pd
import pytest

from repro.report import claim_numbers as numbers
from repro.report.claims import CLAIMS, Claim, claims_table, summary, values_of
from repro.report.content import table
from repro.report.stored import Stored, load_stored
from repro.spectra.record import Spectrum, stack
from repro.storage.results import Cell, Result

NOTHING = Stored(pd.DataFrame(), pd.DataFrame(), {}, {})


def stored(values, measurement="weights", model="mlp"):
    """One result a value, of cells of increasing size."""
    cells = [Cell("mnist", model, n) for n in range(1, len(values) + 1)]
    results = [Result(cell, {"x": np.array(value)}, {}) for cell, value in zip(cells, values)]
    return NOTHING._replace(results={measurement: results})


def claim(relation=">=", model=""):
    return Claim("1", "x is large", "x", "weights", lambda a: a["x"], relation, 0.5, model)


def verdict(monkeypatch, one, of):
    monkeypatch.setattr("repro.report.claims.CLAIMS", [one])
    found = claims_table(of)
    return dict(zip(found.columns, found.rows[0]))


@pytest.mark.parametrize(
    ("values", "relation", "expected"),
    [
        ([0.5, 0.9], ">=", "holds"),
        ([0.5, 0.9], "<=", "holds on some"),
        ([0.6, 0.9], "<=", "does not hold"),
        ([], ">=", "not measured"),
        ([np.nan], ">=", "not measured"),
    ],
)
def test_verdict(monkeypatch, values, relation, expected):
    assert verdict(monkeypatch, claim(relation), stored(values))["verdict"] == expected


def test_failing_cells_are_named(monkeypatch):
    row = verdict(monkeypatch, claim(), stored([0.1, 0.9]))
    assert row["does not hold on"] == "mnist, mlp, 1 per class"
    assert row["found"] == "0.5 (0.1 to 0.9 on 2 cells)"


def test_a_claim_about_the_mlp_ignores_other_networks():
    assert values_of(claim(model="mlp"), stored([0.1], model="vgg11")) == {}
    assert len(values_of(claim(model="mlp"), stored([0.1], model="mlp"))) == 1


def test_a_result_without_what_the_claim_takes_is_left_out():
    other = Claim("1", "y", "y", "weights", lambda a: a["y"], ">=", 0.5)
    assert values_of(other, stored([0.1])) == {}


def test_summary_counts_verdicts():
    rows = pd.DataFrame([["a", "holds"], ["b", "does not hold"], ["c", "holds"]])
    assert summary(table(rows)) == "2 hold, 1 do not"


def test_spectral_claims_on_a_prescribed_spectrum(root):
    """Outliers 9, 7, 5 (C = 3) over a bulk on [-1, 1]; E has the same bulk without outliers."""
    found = load_stored(root)
    values = {one.statement: values_of(one, found) for one in CLAIMS if one.measurement == "hessian_spectrum"}
    assert len(values) == 4
    for by_cell in values.values():
        assert len(by_cell) == 2
    edge = next(iter(values["The training Hessian has outliers beyond its bulk"].values()))
    assert edge == pytest.approx(7.0, rel=0.05)
    assert next(iter(values["The outliers of Hess are those of G"].values())) < 1e-4
    share = next(iter(values["The bulk of Hess comes largely from E"].values()))
    assert share == pytest.approx(0.52, abs=0.1)  # from one probe each


def test_trend_is_spearmans():
    assert numbers.trend(np.array([1.0, 2.0, 5.0, 100.0])) == pytest.approx(1)
    assert numbers.trend(np.array([3.0, 2.0, np.inf, 1.0])) == pytest.approx(-1)


def test_outliers_left_after_a_knockout():
    arrays = {
        "class_part": np.ones(3),
        **Spectrum.exact([4.0, 6.0, 1.0], k=3).arrays("full"),
        **Spectrum.exact([1.5, -3.0, 1.0], k=3).arrays("class"),
    }
    assert numbers.outliers_left(arrays, "class") == pytest.approx(0.25)


def test_alignment_numbers():
    arrays = {
        "class_part": np.ones(3),
        "hessian_overlap_class": np.array([0.9, 0.8, 0.2, 0.1]),
        "gauss_newton_overlap_cross": np.array([0.0, 0.1, 0.8, 0.6]),
        "hessian_eigenvalues": np.array([10.0, 5.0, 1.0, 0.5]),
        "companion_class_part": np.array([4.0, 11.0, 0.0]),
    }
    assert numbers.overlapping(arrays, "hessian") == 2
    assert numbers.outlier_share(arrays, "hessian_overlap_class") == pytest.approx(0.85)
    assert numbers.mini_bulk_overlap(arrays) == pytest.approx(0.7)
    assert numbers.companion_difference(arrays) == pytest.approx(0.15)


def test_theorem_error_compares_group_means():
    arrays = {
        "levels": np.array([4.0, 2.0, 1.0, 0.0]),
        "multiplicities": np.array([2, 2, 2, 1]),
        "constant_eigenvalues": np.array([5.0, 3.0, 2.2, 2.2, 1.0, 1.0, 0.0]),
    }
    assert numbers.theorem_error(arrays) == pytest.approx(0.1)


def test_gap_change_looks_at_the_later_half():
    arrays = {
        "class_part": np.array([[1e-9, 1e-9], [1.0, 1.0], [150.0, 50.0], [15.0, 5.0]]),
        **stack([Spectrum.exact([1.0], k=0)] * 4, "within"),
        "gauss_newton_dim": np.array(1),
    }
    assert numbers.gap_change(arrays) == pytest.approx(1.0)
