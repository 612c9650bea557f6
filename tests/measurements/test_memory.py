"""Measurements stay within their memory where the C² means do not fit, and find what they find with more."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from repro.measurements import class_means, find_measurement
from repro.measurements.settings import vector_bytes
from repro.network import Network

C, N, INPUTS, HIDDEN = 10, 40, 200, 1000
SETTINGS = {
    "class_means": {},
    "alignment": {"eigenvectors": 3, "tolerance": 1e-12, "max_products": 40, "exact_limit": 0},
    "gauss_newton_knockouts": {"outliers": 3, "tolerance": 1e-12, "steps": 30},
}
CONVERGED = {"alignment": {"max_products": 400}, "gauss_newton_knockouts": {"steps": 150}}
# More Lanczos steps than the memory holds vectors: restarts, then runs without a basis.
PEAKS = SETTINGS | {"hessian_spectrum": {"steps": 60, "outliers": 3}, "layer_errors": {}}
VECTORS = 45  # of the parameters' length, which the memory holds; the C² means are 100
CHILD = """
import json, sys
from test_memory import PEAKS, VECTORS, network
from repro.measurements.settings import vector_bytes
from repro.measurements import find_measurement

def resident(key):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(key))

kind, settings = find_measurement(sys.argv[1]), PEAKS[sys.argv[1]]
kind.measure(network(hidden=12), kind.settings(**settings))  # what torch loads at first use is no part of it
large = network()
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from now
before = resident("VmRSS")
kind.measure(large, kind.settings(**settings, memory_bytes=VECTORS * vector_bytes(large)))
print(json.dumps([resident("VmHWM") - before, vector_bytes(large)]))
"""


def network(hidden: int = HIDDEN) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(INPUTS, hidden), nn.Tanh(), nn.Linear(hidden, C)).double().eval()
        y = torch.arange(N) % C
        x = torch.randn(N, INPUTS, dtype=torch.float64) + torch.linspace(1, 6, C)[y, None] * torch.eye(C, INPUTS)[y]
    return Network(model, (x, y))


@pytest.fixture(scope="module")
def small() -> Network:
    return network(hidden=100)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("name", PEAKS)
def test_the_peak_is_within_the_budget(name):
    here = Path(__file__)
    environment = {
        "PYTHONPATH": f"{here.parent}:{here.parents[2]}",
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
    }
    command = [sys.executable, "-c", CHILD, name]
    peak, vector = json.loads(
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    )
    assert 0 < peak <= VECTORS * vector


@pytest.mark.parametrize("name", SETTINGS)
def test_numbers_do_not_depend_on_the_budget(name, small):
    kind, settings = find_measurement(name), SETTINGS[name] | CONVERGED.get(name, {})
    expected = kind.measure(small, kind.settings(**settings))
    found = kind.measure(small, kind.settings(**settings, memory_bytes=VECTORS * vector_bytes(small)))
    assert expected.keys() == found.keys()
    for key, values in expected.items():
        if not key.endswith(("_nodes", "_weights", "_residuals")):  # of random probes, and of runs that restart
            np.testing.assert_allclose(
                found[key], values, rtol=1e-10, atol=1e-10 * max(1e-2, np.abs(values).max()), err_msg=key
            )


@pytest.mark.parametrize(
    ("name", "vectors", "settings"),
    [
        ("class_means", 10, {}),
        ("alignment", 10, {}),
        ("gauss_newton_knockouts", VECTORS, {"knockout": "projection"}),  # holds the means
        ("hessian_spectrum", 10, {}),
    ],
)
def test_what_does_not_fit_is_refused_with_the_number_and_the_setting(name, vectors, settings, small):
    kind = find_measurement(name)
    with pytest.raises(ValueError, match=rf"^{name} needs [\d.e-]+ GB .* raise measurements.{name}.memory_bytes"):
        kind.measure(small, kind.settings(**settings, memory_bytes=vectors * vector_bytes(small)))


@pytest.mark.parametrize("name", ["class_means", "gauss_newton_knockouts", "alignment"])
def test_too_many_classes_are_refused_with_the_setting_that_helps(name):
    """Inner products of the means of 150 classes, 16 GB; before anything is measured, for want of examples too."""
    kind = find_measurement(name)
    model = nn.Linear(149, 150).eval()
    network = Network(model, (torch.randn(4, 149), torch.tensor([3, 7, 3, 7])))
    with pytest.raises(ValueError, match=r"needs 16.2 GB .* .150² class.* some of the classes with classes=\[...\]"):
        kind.measure(network, kind.settings())
    assert kind.measure(network, kind.settings(classes=[7, 3]))["class_part"].shape == (2,)


def test_the_memory_is_said_before_the_work_starts(small, caplog):
    caplog.set_level("INFO", logger="repro.measurements")
    class_means.measure(small, class_means.Settings())
    assert caplog.messages[0].startswith("class_means takes at most 0.024 GB of its memory_bytes = 8e+09: 10² class")
