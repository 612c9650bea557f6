"""Numbers of claims on arrays whose numbers are known."""

import numpy as np
import pytest

from repro.report import claim_numbers as numbers
from repro.spectra.record import Spectrum, stack


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
        **stack([Spectrum.exact([1.0], k=0).arrays("within")] * 4),
        "gauss_newton_dim": np.array(1),
        "epochs": np.array([0, 10, 50, 100]),
    }
    assert numbers.gap_change(arrays) == pytest.approx(1.0)
    with pytest.raises(KeyError):  # the last epoch alone changes nothing
        numbers.gap_change(arrays | {"epochs": np.array([0, 10, 49, 100])})
    exact = {
        "epochs": np.array([0, 10, 50, 100]),
        "eigenvalues": np.ones(3),
        "class_part": np.array([15.0, 5.0]),
        "within_largest": np.array(1.0),
    }
    for epoch, mean in ((0, 1e-9), (10, 1.0), (50, 50.0)):
        exact |= {f"epoch{epoch}_eigenvalues": np.ones(3)}
        exact |= {f"epoch{epoch}_class_part": np.array([mean, mean]), f"epoch{epoch}_within_largest": np.array(0.5)}
    assert numbers.gap_change(exact) == pytest.approx(1.0)
