"""Second moments of errors against dense matrices."""

import numpy as np
import pytest
import torch
from dense import eigenvalues

from repro.curvature.layers import capture
from repro.measurements import layer_errors

C, N = 3, 12


def inputs(network):
    return tuple(torch.cat(parts) for parts in zip(*network.batches()))


def test_errors_of_each_layer(layered):
    arrays = layer_errors.measure(layered, layer_errors.Settings())
    assert list(arrays["layers"]) == ["0", "3", "5"]
    x, _ = inputs(layered)
    seen = capture(layered.model, x, ["3"], bias=False)
    delta = (seen.p / N).sqrt()[..., None] * seen.delta["3"][:, :, 0]
    Delta = delta.flatten(0, 1).T @ delta.flatten(0, 1)
    np.testing.assert_allclose(arrays["layer1_eigenvalues"], eigenvalues(Delta), atol=1e-12)
    np.testing.assert_allclose(arrays["shares"].sum(axis=1), 1)
    parts = [arrays[f"layer1_{part}"].sum() for part in ("class", "cross", "within", "same")]
    assert sum(parts) == pytest.approx(float(Delta.trace()))
    assert arrays["layer1_without_class"].sum() == pytest.approx(float(Delta.trace()) - parts[0])
    assert arrays["layer2_class"][C - 1] < 1e-12  # rank C − 1 at the logits
    assert arrays["class_overlap"][2] == pytest.approx(1)  # two dimensions hold both
