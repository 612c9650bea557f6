"""The stored exact spectrum of a tiny trained network against its dense matrices, at checkpoints and on test data."""

import numpy as np
import pytest
import torch
from dense import dense_parts, eigenvalues

import repro
from repro.curvature.examples import read_examples
from repro.measurements import exact_spectrum
from repro.spectra.exact import ExactSpectrum

C = 4


def stored(arrays, prefix):
    return ExactSpectrum({name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)})


def test_the_last_epoch_has_the_spectra_of_the_dense_matrices(tiny):
    found = ExactSpectrum(exact_spectrum.measure(tiny, exact_spectrum.Settings()))
    G, parts = dense_parts(tiny)
    R = len(found.eigenvalues)
    np.testing.assert_allclose(found.eigenvalues, eigenvalues(G)[:R], atol=1e-12)
    for name, part in parts.items():
        np.testing.assert_allclose(found.without(name), eigenvalues(G - part)[: len(found.without(name))], atol=1e-12)
        np.testing.assert_allclose(found.part(name), eigenvalues(part)[: len(found.part(name))], atol=1e-12)


def test_checkpoints_are_those_of_their_own_networks(tiny):
    arrays = exact_spectrum.measure(tiny, exact_spectrum.Settings(epochs=2, test_per_class=0))
    assert arrays["epochs"].tolist() == [0, 1]
    first = repro.Network(tiny.at_epoch(0), (tiny.train.inputs, tiny.train.labels))
    found, (G, _) = stored(arrays, "epoch0_"), dense_parts(first)
    np.testing.assert_allclose(found.eigenvalues, eigenvalues(G)[: len(found.eigenvalues)], atol=1e-12)
    alone = exact_spectrum.measure(tiny, exact_spectrum.Settings(epochs=1, test_per_class=0))
    assert alone["epochs"].tolist() == [1]
    assert not [name for name in alone if name.startswith(("epoch0", "epoch1", "test_"))]
    np.testing.assert_array_equal(alone["eigenvalues"], arrays["eigenvalues"])


def test_test_data_are_the_first_examples_of_each_class(tiny):
    arrays = exact_spectrum.measure(tiny, exact_spectrum.Settings(epochs=1, test_per_class=2))
    x, y = tiny.test.inputs, tiny.test.labels
    chosen = sorted(i for c in range(C) for i in [i for i in range(len(y)) if y[i] == c][:2])
    found = stored(arrays, "test_")
    G, _ = dense_parts(repro.Network(tiny.model, (x[chosen], y[chosen])))
    np.testing.assert_allclose(found.eigenvalues, eigenvalues(G)[: len(found.eigenvalues)], atol=1e-12)


def test_classes_with_fewer_examples_give_what_they_have():
    labels = torch.tensor([2, 0, 2, 2, 0, 1])
    held = read_examples((torch.arange(6), labels), labels.device, 6)
    assert held.first_of_each_class(2).inputs.tolist() == [0, 1, 2, 4, 5]


def test_too_many_examples_are_left_to_lanczos(tiny):
    N = len(tiny.train.labels)
    settings = exact_spectrum.Settings(limit=N * C - 1)
    assert not settings.serves(N, C)
    assert exact_spectrum.measure(tiny, settings) == {"too_large": N * C}
    assert exact_spectrum.Settings(limit=N * C).serves(N, C)


@pytest.mark.parametrize("setting", [{"limit": 0}, {"epochs": 0}, {"test_per_class": -1}])
def test_settings_that_are_no_counts_are_refused(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} is .*; it must be at least"):
        exact_spectrum.Settings(**setting)
