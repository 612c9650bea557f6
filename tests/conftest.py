"""Networks small enough for dense matrices, as every measurement takes them; how tests are divided among processes."""

import os
from pathlib import Path

for name in (
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
):  # of the `make test` that runs us: a make that a test starts is one of its own
    os.environ.pop(name, None)
os.environ["OMP_NUM_THREADS"] = "1"  # as tests run side by side; before torch is imported, and for what a test starts

import pytest  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import cross_entropy, one_hot  # noqa: E402

from repro.network import Network  # noqa: E402

TESTS = Path(__file__).resolve().parent
# They start pipelines and jobs of their own on every core, and wait for them: never two of them at a time.
WHOLE_MACHINE = ("tests/pipeline/slurm/", "tests/test_kills.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the tests, the long ones come first, so that the processes end together."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (not item.nodeid.startswith(WHOLE_MACHINE), item.path.parent != TESTS))


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("xdist"):
        config.option.loadscopereorder = False  # else files of many tests come first, not those of long ones
        config.option.maxworkerrestart = config.option.maxworkerrestart or "0"  # a test that hangs ends the run


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """`pytest -n 2`: a process takes a whole file, whose tests may share fixtures; WHOLE_MACHINE counts as one file."""
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "whole machine" if nodeid.startswith(WHOLE_MACHINE) else super()._split_scope(nodeid)

    return Files(config, log)


def trained(model: nn.Module, x: Tensor, y: Tensor, *, steps: int = 100) -> nn.Module:
    """The model after some steps of gradient descent with weight decay, in eval mode."""
    optimiser = torch.optim.SGD(model.train().parameters(), lr=0.3, weight_decay=5e-4)
    for _ in range(steps):
        optimiser.zero_grad()
        cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="session")
def tiny() -> Network:
    """Four Gaussian classes and a network of 70 parameters trained on them; epoch 0 its initial weights, 1 the last."""

    def initial() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4)).double().eval()

    with torch.random.fork_rng():
        generator = torch.Generator().manual_seed(1)
        y = torch.arange(33) % 4
        x = torch.randn(33, 6, dtype=torch.float64, generator=generator) + 2 * one_hot(y, 6)
        model = trained(initial(), x[:24], y[:24])
        return Network(
            model,
            (x[:24], y[:24]),
            (x[24:], y[24:]),
            checkpoints={0: initial(), 1: model},
            batch_size=10,
            weight_decay=5e-4,
        )


@pytest.fixture(scope="session")
def layered() -> Network:
    """Three linear layers with random weights, the first with batch norm, the second without a bias; three classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU()]
        model = nn.Sequential(*first, nn.Linear(8, 7, bias=False), nn.ReLU(), nn.Linear(7, 3)).double().eval()
        x = torch.randn(12, 6, dtype=torch.float64)
    return Network(model, (x, torch.arange(12) % 3), weight_decay=5e-4, batch_size=7)


@pytest.fixture(scope="session")
def convolution() -> Network:
    """A convolution of four positions and a linear layer with random weights; three classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).double().eval()
        x = torch.randn(12, 1, 3, 3, dtype=torch.float64)
    return Network(model, (x, torch.arange(12) % 3), weight_decay=5e-4, batch_size=7)
