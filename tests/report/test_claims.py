"""The claims themselves: each has a figure, and a number on results that are known."""

import numpy as np
import pytest

from repro.figures import find_figure
from repro.report.claim_numbers import outliers_left
from repro.report.claims import CLAIMS
from repro.report.stored import load_stored
from repro.report.verdicts import values_of
from repro.spectra.record import Spectrum


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.statement)
def test_a_claim_is_shown_by_a_figure_of_its_measurement(claim):
    assert claim.measurement in find_figure(claim.figure).measurements
    assert claim.relation in (">=", "<=")
    assert claim.why == "" or claim.why.split(":")[0] in ("scale", "training", "statement")


def test_spectral_claims_on_a_prescribed_spectrum(root):
    """Outliers 9, 7, 5 (C = 3) over a bulk on [-1, 1]; E has the same bulk without outliers."""
    found = load_stored(root)
    values = {
        one.statement: [value.number for value in values_of(one, found)]
        for one in CLAIMS
        if one.measurement == "hessian_spectrum"
    }
    assert len(values) == 4
    assert all(len(numbers) == 2 for numbers in values.values())
    assert values["The training Hessian has outliers beyond its bulk"][0] == pytest.approx(7.0, rel=0.05)
    assert values["The outliers of Hess are those of G"][0] < 1e-4
    share = values["The bulk of Hess comes largely from E"][0]
    assert share == pytest.approx(0.52, abs=0.1)  # from one probe each


def test_what_a_knockout_leaves_is_the_same_by_exact_eigenvalues_and_by_lanczos():
    before, after = np.array([4.0, 3.0, 2.0, 0.5]), np.array([1.0, 0.5, 0.25, -0.1])
    exact = {"class_part": np.ones(4), "eigenvalues": before, "subtraction_class": after}
    lanczos = {"class_part": np.ones(4), **Spectrum.exact(before, k=4).arrays("full")}
    lanczos |= Spectrum.exact(after, k=4).arrays("class")
    assert outliers_left(exact, "class") == pytest.approx(1.75 / 9)
    assert outliers_left(lanczos, "class") == pytest.approx(outliers_left(exact, "class"))
