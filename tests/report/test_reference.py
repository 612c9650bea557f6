"""Published numbers: every row has a source and a way to ours; ours are found where they are measured."""

import numpy as np
import pandas as pd

from repro.report.reference import OURS, reference_table, reference_values
from repro.report.stored import Stored, load_stored
from repro.storage.results import Cell, Result


def test_every_published_number_has_a_source_and_a_counterpart():
    values = reference_values()
    assert (values.source != "").all()
    assert set(values.status) <= {"certain", "likely"}
    assert {ours.split()[0] for ours in values.ours} == set(OURS)


def test_ours_stand_beside_the_published_and_say_what_differs(root):
    found = reference_table(load_stored(root))
    rows = [dict(zip(found.columns, row)) for row in found.rows]
    parameters = next(row for row in rows if row["quantity"] == "parameters")
    assert (parameters["where"], parameters["ours"]) == ("Fashion-MNIST, VGG11", "203")
    assert parameters["what differs"] == "our network has width 0.125"
    assert next(row for row in rows if row["quantity"].startswith("trainings"))["ours"] == "8"
    assert not any(row["quantity"].startswith("largest") for row in rows)


def test_outlier_counts_are_given_relative_to_the_number_of_classes():
    overlaps = [np.array([0.9, 0.8, 0.1]), np.array([0.9, 0.8, 0.7]), np.array([0.9, 0.8, 0.4])]
    results = [
        Result(Cell("mnist", "mlp", n), {"hessian_overlap_class": overlap, "class_part": np.ones(3)}, {})
        for n, overlap in enumerate(overlaps)
    ]
    found = reference_table(Stored(pd.DataFrame(), pd.DataFrame(), {}, {"alignment": results}))
    assert found.rows[0][3] == "C − 1 on 2, C on 1 of 3 cells"


def test_spikes_come_from_the_synthetic_spectra():
    result = Result(None, {"spiked_exact": np.array([0.1, 4.5, 5.3, 6.2])}, {})
    found = reference_table(Stored(pd.DataFrame(), pd.DataFrame(), {}, {"synthetic_spectra": [result]}))
    assert [row[3] for row in found.rows] == ["6.20", "5.30", "4.50"]
