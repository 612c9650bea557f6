"""The same numbers on a GPU as on the CPU: products, spectra, measurements, trainings.

What the CPU gives in float64 is the reference. Each test runs on the CPU too, in another precision or with the data
divided otherwise: so its logic is tried where there is no GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import trained
from torch import Tensor, nn

from repro.curvature.cross_class import class_structure
from repro.curvature.exact import exact_spectrum
from repro.curvature.example_gradients import ExampleGradients
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian, HessianResidual
from repro.curvature.kfac import kfac_eigenvalues, kronecker_factors
from repro.curvature.layers import LayerStream
from repro.linalg.eigenpairs import top_eigenpairs
from repro.linalg.lanczos import lanczos
from repro.linalg.operator import Dense
from repro.linalg.probe import random_unit_vector
from repro.linalg.spectrum import spectrum
from repro.measurements import MEASUREMENTS, find_measurement
from repro.measurements.settings import make_settings
from repro.network import Network
from repro.training import Recipe, train_block

torch.set_num_threads(1)
CPU = torch.device("cpu")
GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
)
ROUNDING = {torch.float64: 1e-10, torch.float32: 2e-5}  # of sums of some hundred terms; TF32 makes 1e-3
CLASSES = 4


@pytest.fixture(params=["cpu", GPU])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


class Problem(NamedTuple):
    """A trained network with batch norm, and its data."""

    model: nn.Module
    x: Tensor
    y: Tensor

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.x.split(size), self.y.split(size)))


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(),
        nn.Linear(20, 7), nn.ReLU(), nn.Linear(7, CLASSES),
    )  # fmt: skip


def problem(device: torch.device = CPU, dtype: torch.dtype = torch.float64) -> Problem:
    """The same network and data whatever the device and the precision."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        y = torch.arange(40) % CLASSES
        x = torch.randn(40, 1, 8, 8, dtype=torch.float64) + y.view(-1, 1, 1, 1) / 2
        x = x.float().double()  # exact in both precisions, and so are the weights
        model = trained(convnet().double(), x, y, steps=10).float().to(device, dtype)
    return Problem(model, x.to(device, dtype), y.to(device))


def assert_close(found: Tensor, expected: Tensor, dtype: torch.dtype, factor: float = 1.0) -> None:
    """Relative to the norm of the whole."""
    difference = (found.cpu().double() - expected).norm() / expected.norm()
    assert difference < factor * ROUNDING[dtype]


@pytest.mark.parametrize("budget", [0, 1 << 30])
@pytest.mark.parametrize("matrix", [Hessian, GaussNewton, HessianResidual])
def test_products(matrix: type, budget: int, device: torch.device, dtype: torch.dtype) -> None:
    here, there = problem(), problem(device, dtype)
    A, B = matrix(here.model, here.batches(40)), matrix(there.model, there.batches(16), memory_budget=budget)
    V = torch.randn(A.dim, 3, generator=torch.Generator().manual_seed(1))
    assert B.loss == pytest.approx(A.loss, rel=ROUNDING[dtype])
    assert_close(B @ V.to(device, dtype), A @ V.double(), dtype, factor=3)
    assert_close(B.gradient(), A.gradient(), dtype, factor=3)


def test_the_fast_path_serves(device: torch.device, dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    there = problem(device, dtype)
    H = Hessian(there.model, there.batches(16))
    H @ torch.ones(H.dim, dtype=dtype, device=device)  # it is the first product that chooses
    assert "double backward is used" not in caplog.text


def test_class_structure(device: torch.device, dtype: torch.dtype) -> None:
    here, there = problem(), problem(device, dtype)
    A, B = class_structure(here.model, here.batches(40)), class_structure(there.model, there.batches(16))
    assert_close(B.weights, A.weights, dtype)
    assert_close(B.rows, A.rows, dtype, factor=3)
    for part in ("class", "cross", "same"):
        assert_close(B.gram().eigenvalues(part), A.gram().eigenvalues(part), dtype, factor=3)


def test_gradients_of_examples(device: torch.device, dtype: torch.dtype) -> None:
    here, there = problem(), problem(device, dtype)
    u = torch.randn(40, 2, CLASSES, generator=torch.Generator().manual_seed(1))
    names = ["0.weight", "1.bias", "10.weight"]
    expected = ExampleGradients(here.model, names)(here.x, u.double())
    assert_close(ExampleGradients(there.model, names)(there.x, u.to(device, dtype)), expected, dtype)


@pytest.mark.parametrize("budget", [1 << 22, 1 << 30])
def test_exact_spectrum(budget: int, device: torch.device, dtype: torch.dtype) -> None:
    here, there = problem(), problem(device, dtype)
    kinds = ("subtraction", "projection")
    expected = exact_spectrum(here.model, here.batches(40), knockouts=kinds).arrays
    found = exact_spectrum(there.model, there.batches(16), knockouts=kinds, memory_budget=budget).arrays
    assert found.keys() == expected.keys()
    largest, allowed = expected["eigenvalues"][0], ROUNDING[dtype]
    for name in expected:
        if name.startswith(("eigenvalues", "without", "class_part", "cross_part", "same_part", "mass")):
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=allowed * largest)
        elif name.startswith("share"):  # of the leading eigenpairs, which are apart from one another
            np.testing.assert_allclose(found[name][:3], expected[name][:3], atol=1e3 * allowed)


def test_kronecker_factors(device: torch.device, dtype: torch.dtype) -> None:
    here, there = problem(), problem(device, dtype)
    for layer in ("0", "8"):
        A = kronecker_factors(LayerStream(here.model, here.batches(40), layer), sharing="expand")
        B = kronecker_factors(LayerStream(there.model, there.batches(16), layer), sharing="expand")
        assert_close(kfac_eigenvalues(B), kfac_eigenvalues(A), dtype)


@pytest.mark.parametrize("name", [name for name in MEASUREMENTS if find_measurement(name).of_network])
def test_every_measurement(name: str, device: torch.device, tiny: Network) -> None:
    """All its numbers, but for the parts of a Lanczos density that rounding decides."""

    def on(device: torch.device, batch_size: int) -> dict[str, np.ndarray]:
        copies = {epoch: moved(tiny.at_epoch(epoch), device) for epoch in tiny.epochs}
        splits = ((split.inputs, split.labels) for split in (tiny.train, tiny.test))  # they move to the model's device
        network = Network(copies[1], *splits, weight_decay=tiny.weight_decay, checkpoints=copies, batch_size=batch_size)
        kind = find_measurement(name)
        steps = {"steps": 12} if hasattr(kind.settings, "steps") else {}
        return kind.measure(network, make_settings(kind.settings, steps, name))

    expected, found = on(CPU, 10), on(device, 24)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key].dtype == values.dtype
        if values.dtype.kind == "U":
            assert (found[key] == values).all()
        elif "residual" not in key and not key.endswith("resolution"):
            np.testing.assert_allclose(found[key], values, rtol=1e-5, atol=1e-7, err_msg=key)


def moved(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy of the first network that `tiny` has, elsewhere."""
    copy = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    copy.load_state_dict(model.state_dict())
    return copy.eval().to(device)


@pytest.fixture
def matrices(device: torch.device) -> tuple[Dense, Dense]:
    A = torch.randn(300, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    A = A @ A.T / 300 + torch.diag(torch.tensor([9.0, -8.0, 7.0, *[0.0] * 297], dtype=torch.float64))
    return Dense(A), Dense(A.to(device))


def test_spectrum(matrices: tuple[Dense, Dense], device: torch.device) -> None:
    here, there = (
        spectrum(A, k=3, steps=40, probes=2, tolerance=1e-3, memory_budget=1 << 30, seed=0) for A in matrices
    )
    assert there.vectors.device.type == device.type
    np.testing.assert_allclose(there.nodes, here.nodes, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(there.weights, here.weights, rtol=1e-5, atol=1e-10)


def test_eigenpairs(matrices: tuple[Dense, Dense], device: torch.device) -> None:
    here, there = (
        top_eigenpairs(A, 3, tolerance=1e-3, max_products=99, memory_budget=1 << 20, seed=0) for A in matrices
    )
    torch.testing.assert_close(there.eigenvalues.cpu(), here.eigenvalues)
    assert there.converged.device.type == device.type
    assert there.converged.all()


def test_basis_on_the_host(matrices: tuple[Dense, Dense]) -> None:
    here, there = matrices
    start = random_unit_vector(there, torch.Generator().manual_seed(1))
    reference, on_host = lanczos(here, start.cpu(), 30), lanczos(there, start, 30, basis_device=CPU)
    assert on_host.Q.device.type == "cpu"
    torch.testing.assert_close(on_host.Q, reference.Q, rtol=1e-6, atol=1e-8)


class Images(NamedTuple):
    images: Tensor
    labels: Tensor
    classes: int


RATES = [0.1, 0.03, 1e30]  # the last diverges


def weights_of(device: torch.device, engine: str, precision: str = "fp32", **options: object) -> dict[int, dict]:
    """The weights of the networks that this call trains to the end, six epochs, by the position of their rate."""
    dtype = torch.float64 if precision == "fp32" else torch.float32
    data = Images(*problem(device, dtype)[1:], CLASSES)
    recipe = Recipe(
        epochs=6, batch_size=12, momentum=0.9, weight_decay=5e-4, milestones=[1 / 3], factor=0.1, evaluate="last",
        precision=precision, last_batch="keep", seed=0,
    )  # fmt: skip
    kept: dict[int, dict] = {}
    histories = train_block(
        convnet, data, data, RATES, recipe, engine=engine, checkpoint_epochs=[6], **options,
        on_checkpoint=lambda index, epoch, network: kept.update({index: to_cpu(network.state_dict())}),
    )  # fmt: skip
    assert [history.diverged for history in histories] == [False, False, True]
    return kept


def to_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu().clone() for name, tensor in state.items()}


@pytest.mark.parametrize("engine", ["sequential", "stacked"])
def test_engines_agree(engine: str, device: torch.device) -> None:
    expected, found = weights_of(CPU, "sequential"), weights_of(device, engine)
    assert found.keys() == {0, 1}
    for index, weights in found.items():
        for name, value in weights.items():
            torch.testing.assert_close(value, expected[index][name], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("engine", ["sequential", "stacked"])
def test_precisions_are_near_float32(engine: str, precision: str, device: torch.device) -> None:
    expected, found = weights_of(CPU, "sequential"), weights_of(device, engine, precision)
    for index in (0, 1):
        for name in ("8.weight", "10.weight"):
            reference = expected[index][name]
            difference = (found[index][name].double() - reference).norm() / reference.norm()
            assert difference < {"tf32": 0.02, "bf16": 0.1}[precision]


@pytest.mark.parametrize("engine", ["sequential", "stacked"])
def test_killed_and_resumed_equals_undisturbed(engine: str, device: torch.device, tmp_path: Path) -> None:
    def kill(done: int, total: int) -> None:
        if done >= 7:
            raise KeyboardInterrupt

    state: dict[str, object] = {"checkpoint": tmp_path / "block.safetensors", "checkpoint_seconds": 0}
    undisturbed = weights_of(device, engine)
    with pytest.raises(KeyboardInterrupt):
        weights_of(device, engine, **state, on_epoch=kill)
    resumed = weights_of(device, engine, **state)
    assert 1 in resumed  # the first network of a sequential block was trained before
    for index, weights in resumed.items():
        assert all(torch.equal(value, undisturbed[index][name]) for name, value in weights.items())


def python(code: str, **environment: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


WORKERS = "from repro.pipeline.devices import find_device, worker_gpus; "
WORKERS += "print(find_device('auto'), worker_gpus('auto', 2), worker_gpus('cpu', 2))"


def test_workers_see_what_is_shown(device: torch.device) -> None:
    """Of the GPUs that CUDA_VISIBLE_DEVICES shows, the first; on none, the CPU."""
    shown = "0" if device.type == "cuda" else ""
    expected = "cuda:0 ['0', '0']" if shown else "cpu [None, None]"
    assert python(WORKERS, CUDA_VISIBLE_DEVICES=shown) == f"{expected} [None, None]"
