"""Networks small enough for dense matrices, as every measurement takes them."""

import os

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from repro.network import Network

for name in (
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
):  # of the `make test` that runs us: a make that a test starts is one of its own
    os.environ.pop(name, None)


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
