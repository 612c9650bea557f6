"""Inner products of class means, with and without room for them all."""

import numpy as np
from dense import eigenvalues

from repro.curvature.cross_class import companion_structure
from repro.measurements import class_means

C = 4


def test_class_means_do_not_depend_on_the_budget(tiny):
    arrays = class_means.measure(tiny, class_means.Settings())
    sliced = class_means.measure(tiny, class_means.Settings(memory_bytes=16 * 8 * 70 + 32 * C**4))
    for name, values in arrays.items():
        np.testing.assert_allclose(sliced[name], values, rtol=1e-9, atol=1e-12, err_msg=name)
    companion = companion_structure(tiny.model, tiny.batches())
    np.testing.assert_allclose(
        arrays["companion_class_part"], eigenvalues(companion.class_part.dense())[:C], rtol=1e-8, atol=1e-14
    )
    own = np.arange(C) * (C + 1)  # rows (c, c): the class means
    w = arrays["weights"].sum(axis=1) - np.diag(arrays["weights"])
    gram = np.sqrt(w)[:, None] * arrays["means"][np.ix_(own, own)] * np.sqrt(w)
    np.testing.assert_allclose(np.linalg.eigvalsh(gram)[::-1], arrays["class_part"], rtol=1e-8, atol=1e-14)


def test_class_means_of_many_classes_are_stored_alone(tiny):
    everything = class_means.measure(tiny, class_means.Settings())
    arrays = class_means.measure(tiny, class_means.Settings(stored_means=C**2 - 1))
    own = np.arange(C) * (C + 1)
    for prefix in ("", "companion_"):
        assert f"{prefix}means" not in arrays
        expected = everything[f"{prefix}means"][np.ix_(own, own)]
        np.testing.assert_allclose(arrays[f"{prefix}class_means"], expected, rtol=1e-10, atol=1e-15)


def test_some_classes_alone(tiny):
    """Rows and columns of the inner products of all means, in the order asked for."""
    everything = class_means.measure(tiny, class_means.Settings())
    classes = [3, 0]
    arrays = class_means.measure(tiny, class_means.Settings(classes=classes))
    pairs = [C * c + k for c in classes for k in classes]
    for prefix in ("", "companion_"):
        np.testing.assert_allclose(
            arrays[f"{prefix}means"], everything[f"{prefix}means"][np.ix_(pairs, pairs)], rtol=1e-9, atol=1e-12
        )
        weights = everything[f"{prefix}weights"]
        np.testing.assert_allclose(arrays[f"{prefix}weights"], weights[np.ix_(classes, classes)], rtol=1e-12)
        whole = arrays[f"{prefix}weights"].sum(axis=1) + arrays[f"{prefix}others"]
        np.testing.assert_allclose(whole, weights[classes].sum(axis=1), rtol=1e-12)
        assert len(arrays[f"{prefix}cross_part"]) == 2 * 1
