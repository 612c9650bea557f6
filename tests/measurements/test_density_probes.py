"""Several probes estimate one spectrum, by either way."""

import numpy as np
from dense import assert_mean, by_magnitude

from repro.curvature.hessian import Hessian
from repro.measurements import density_probes


def test_several_probes_estimate_the_same_spectrum_both_ways(tiny):
    arrays = density_probes.measure(tiny, density_probes.Settings(steps=50, tolerance=1e-6, probes=40))
    H = Hessian(tiny.model, tiny.batches()).dense().numpy()
    for way in ("plain", "deflated"):
        nodes, weights = arrays[f"{way}_nodes"], arrays[f"{way}_weights"]
        assert len(nodes) == 40
        assert_mean((nodes * weights).sum(axis=1), np.trace(H) / len(H))
    np.testing.assert_allclose(
        by_magnitude(arrays["deflated_eigenvalues"]), by_magnitude(np.linalg.eigvalsh(H))[:4], rtol=1e-6
    )
