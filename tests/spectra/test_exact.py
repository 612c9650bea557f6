"""The record of an exact spectrum: what it says about given numbers."""

import numpy as np
import pytest

from repro.spectra.exact import ExactSpectrum, knockout_name


@pytest.fixture
def found():
    shares = {
        "class": [0.9, 0.3, 0.1, np.nan],
        "cross": [0.05, 0.6, 0.2, np.nan],
        "within": [0.04, 0.1, 0.65, np.nan],
        "same": [0.01, 0.0, 0.05, np.nan],
    }
    return ExactSpectrum(
        {
            "eigenvalues": np.array([4.0, 2.0, 1.0, 0.0]),
            **{f"share_{part}": np.array(values) for part, values in shares.items()},
            "overlap_class": np.array([0.8, 0.2, 0.0, np.nan]),
            "overlap_cross": np.array([0.1, 0.7, 0.1, np.nan]),
            "class_part": np.array([3.0, 0.5]),
            "subtraction_class": np.array([2.5, 1.0, 0.1, 0.0]),
            "subtraction_class_cross": np.array([1.0, 0.5, 0.1, 0.0]),
            "subtraction_class_cross_same": np.array([0.9, 0.5, 0.1, 0.0]),
            "projection_class": np.array([2.0, 1.0, 0.0, 0.0]),
            "dim": np.array(10),
            "resolution": np.array(1e-12),
        }
    )


def test_eigenvalues_by_their_source(found):
    assert found.source.tolist() == ["class", "cross", "within", ""]
    assert found.outliers.tolist() == [4.0]
    assert found.mini_bulk.tolist() == [2.0]
    assert found.of("within").tolist() == [1.0]
    assert "1 of class, 1 of cross, 1 of within" in repr(found)


def test_moments(found):
    assert found.trace == 7
    assert found.frobenius_norm == pytest.approx(21**0.5)
    assert ExactSpectrum({"eigenvalues": np.full(5, 0.3)}).effective_rank == pytest.approx(5)
    assert ExactSpectrum({"eigenvalues": np.array([2.0, 0.0])}).effective_rank == pytest.approx(1)


def test_tables(found):
    assert found.shares.index.tolist() == [1, 2, 3, 4]
    assert found.shares.loc[2].tolist() == [0.3, 0.6, 0.1, 0.0]
    frame = found.frame()
    assert frame.loc[1, ["eigenvalue", "share_class", "overlap_class", "source"]].tolist() == [4.0, 0.9, 0.8, "class"]


def test_parts_and_knockouts_by_name(found):
    assert found.part("class").tolist() == [3.0, 0.5]
    assert found.part("within").tolist() == found.arrays["subtraction_class_cross_same"].tolist()
    assert found.without("cross", "class").tolist() == found.arrays["subtraction_class_cross"].tolist()
    assert found.without("same", how="projection").tolist() == found.arrays["projection_class"].tolist()
    assert knockout_name({"same", "class"}, "projection") == "projection_class_same"


@pytest.mark.parametrize(
    ("parts", "how", "sentence"),
    [
        (("klass",), "subtraction", "G has no part 'klass'; its parts are class, cross, within, same"),
        (("cross",), "projection", "no projection_cross here, only subtraction_class, .*projection_class; exact_spect"),
        ((), "subtraction", "there is no subtraction here"),
    ],
)
def test_what_is_not_there_is_said(found, parts, how, sentence):
    with pytest.raises(ValueError, match=sentence):
        found.without(*parts, how=how)


def test_a_record_without_knockouts_says_so():
    with pytest.raises(ValueError, match=r"only no knockout at all|none"):
        ExactSpectrum({"eigenvalues": np.ones(2)}).without("class")


def test_arrays_make_the_same_again(found, tmp_path):
    np.savez(tmp_path / "found.npz", **found.arrays)
    with np.load(tmp_path / "found.npz") as stored:
        again = ExactSpectrum(stored)
    assert again.frame().equals(found.frame())


def test_a_picture_shows_each_eigenvalue_once_in_the_colour_of_its_source(found):
    (ax,) = found.plot().axes
    points = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert points == {"1 of class": [[1, 4.0]], "1 of cross": [[2, 2.0]], "1 of within": [[3, 1.0]]}
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
