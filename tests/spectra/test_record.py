"""The record of a spectrum: there and back, what is left without the outliers, moments, stacks over checkpoints."""

import numpy as np
import pytest

from repro.spectra.record import PARTS, Spectrum, stack

P = 10


def two_probes():
    """Eigenvalues 5 and -3 converged, 1 not yet; two probes of four nodes, the second one ended early."""
    nodes = np.array([[5.0, -3.0, 1.0, 0.5], [5.0, -3.0, 0.8, 0.0]])
    weights = np.array([[0.1, 0.1, 0.3, 0.5], [0.1, 0.1, 0.8, 0.0]])
    converged = np.array([True, True, False])
    return Spectrum(nodes, weights, np.array([5.0, -3.0, 1.0]), np.zeros(3), converged, converged, P)


def check_same(found, expected):
    for part in PARTS:
        np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))


def test_stored_arrays_have_these_names_and_give_the_record_back():
    arrays = two_probes().arrays("hessian")
    assert sorted(arrays) == [
        "hessian_converged", "hessian_deflated", "hessian_dim", "hessian_eigenvalues", "hessian_nodes",
        "hessian_residuals", "hessian_weights",
    ]  # fmt: skip
    assert arrays["hessian_converged"].dtype == bool
    check_same(Spectrum.from_arrays(arrays, "hessian"), two_probes())


def test_names_are_those_of_the_spectra_alone():
    arrays = two_probes().arrays("full") | two_probes().arrays("layer0_kfac") | {"class_part": np.ones(3)}
    assert Spectrum.names(arrays) == ["full", "layer0_kfac"]
    assert Spectrum.names({"plain_nodes": np.ones((1, 2)), "plain_weights": np.ones((1, 2))}) == []


def test_a_plain_quadrature_stored_without_eigenvalues_is_read_as_one():
    arrays = {"plain_nodes": np.array([[1.0, 2.0]]), "plain_weights": np.array([[0.5, 0.5]])}
    found = Spectrum.from_arrays(arrays, "plain", dim=7)
    assert (found.eigenvalues.size, found.residuals.size, found.converged.size, found.dim) == (0, 0, 0, 7)
    np.testing.assert_array_equal(found.bulk().nodes, found.nodes)


def test_a_spectrum_that_was_not_measured_is_a_missing_key():
    with pytest.raises(KeyError, match="test_hessian"):
        Spectrum.from_arrays(two_probes().arrays("train_hessian"), "test_hessian")


def test_the_bulk_is_what_is_left_without_the_converged_outliers():
    bulk = two_probes().bulk()
    np.testing.assert_array_equal(bulk.nodes, [[1.0, 0.5], [0.8, 0.0]])
    np.testing.assert_allclose(bulk.weights.sum(axis=1), 1 - 2 / P)
    assert bulk.eigenvalues.size == 0
    assert bulk.dim == P
    assert bulk.largest == 1.0


def test_moments_are_means_over_the_probes():
    first, second = 0.5 - 0.3 + 0.3 + 0.25, 0.5 - 0.3 + 0.64
    assert two_probes().moment(1) == pytest.approx((first + second) / 2)
    assert two_probes().trace == pytest.approx(P * (first + second) / 2)
    assert two_probes().moment(0) == pytest.approx(1)


@pytest.mark.parametrize("k", [0, 2, 5])
@pytest.mark.parametrize("dim", [5, 9])
def test_exact_spectrum(dim, k):
    """Moments are those of the matrix, the leading eigenvalues stand first, and what is not given is zero."""
    values = np.array([1.0, -4.0, 2.0, 0.5, 3.0])
    found = Spectrum.exact(values, k=k, dim=dim)
    for power in range(5):
        assert found.moment(power) == pytest.approx((values**power).sum() / dim if power else 1)
    np.testing.assert_array_equal(found.eigenvalues, [-4.0, 3.0, 2.0, 1.0, 0.5][:k])
    assert found.converged.all()
    np.testing.assert_allclose(found.bulk().weights.sum(axis=1), 1 - k / dim, atol=1e-15)
    assert found.bulk().largest == ([4.0, 3.0, 2.0, 1.0, 0.5, 0.0][k])


def test_exact_spectrum_may_be_filled_up():
    found = Spectrum.exact([2.0, 1.0], k=1, length=6)
    assert found.steps == 6
    assert found.moment(2) == pytest.approx(2.5)


def test_eigenvalues_known_from_elsewhere():
    found = two_probes().named([5.5, -3.5, 2.0, 1.0])
    np.testing.assert_array_equal(found.eigenvalues, [5.5, -3.5, 2.0, 1.0])
    np.testing.assert_array_equal(found.converged, [True, True, False, False])
    np.testing.assert_array_equal(found.bulk().nodes, two_probes().bulk().nodes)


def test_checkpoints_of_different_length_are_stacked_and_read_back():
    short = Spectrum.exact([2.0], k=1)
    short = Spectrum(*(np.repeat(a, 2, axis=0) for a in (short.nodes, short.weights)),
                     short.eigenvalues, short.residuals, short.converged, short.deflated, P)  # fmt: skip
    arrays = stack([{**found.arrays("G"), "loss": np.array(loss)} for found, loss in ((two_probes(), 0.5), (short, 2))])
    np.testing.assert_array_equal(arrays["loss"], [0.5, 2])
    assert arrays["G_nodes"].shape == (2, 2, 4)
    assert arrays["G_dim"] == P
    check_same(Spectrum.from_arrays(arrays, "G", at=0), two_probes())
    last = Spectrum.from_arrays(arrays, "G", at=-1)
    np.testing.assert_array_equal(last.converged, [True, False, False])
    assert last.moment(1) == pytest.approx(2)
    assert last.bulk().largest == 0


def test_largest_ignores_nodes_without_weight():
    assert Spectrum.density([1.0, -2.0, 50.0], [0.5, 0.5, 0.0], 4).largest == 2
