"""That layers are intercepted where they may be; that the products are right is tested through the operators."""

import pytest
import torch
from oracles import NETWORKS, dense_hessian, tiny
from torch import nn
from torch.nn import functional as F

from repro.curvature.affine import Direction, Intercept
from repro.curvature.hessian import Hessian

SEEN_BY_AUTOGRAD = {  # in part; the other networks' weights and biases all belong to layers that are intercepted
    "tokens": {"0.weight", "0.bias"},
    "same": {"0.weight", "0.bias", "3.weight", "3.bias"},
    "attention": {f"0.attention.{p}" for p in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")},
    "tied": {"0.scale"},
}


@pytest.mark.parametrize("network", NETWORKS)
def test_autograd_sees_only_the_weights_of_other_operations(network):
    model, x, _ = tiny(network)
    weights = dict(model.named_parameters())
    direction = Direction(x)
    with Intercept(direction, weights, curved=True):
        logits = model(x)
    gradients = torch.autograd.grad(logits.sum(), list(weights.values()), create_graph=True, allow_unused=True)
    seen = {name for name, gradient in zip(weights, gradients) if gradient is not None}
    assert seen == SEEN_BY_AUTOGRAD.get(network, set())
    torch.testing.assert_close(logits, model(x))


def test_layers_of_weights_not_chosen_are_left_alone():
    model, x, _ = tiny("tanh")
    with Intercept(Direction(x), {"4.weight": model[4].weight}, curved=True):
        logits = model.requires_grad_(False)(x)
    assert "PushBackward" in logits.grad_fn.name()
    assert not model[:4](x).requires_grad


class Functional(nn.Module):
    """The operations called as functions, with no more than their required arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.matrix = nn.Parameter(torch.randn(2, 1, 2, 2)), nn.Parameter(torch.randn(3, 8))
        self.scale, self.mean, self.var = nn.Parameter(torch.rand(2)), torch.randn(2), torch.full((2,), 1e-4)

    def forward(self, x):
        z = F.conv2d(x, self.kernel)
        return F.linear(F.batch_norm(z, self.mean.to(z), self.var.to(z), self.scale).flatten(1), self.matrix)


def test_defaults_of_the_operations_are_torchs():
    torch.manual_seed(0)
    model, x, y = Functional().double(), torch.randn(4, 1, 3, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    found, expected = Hessian(model, [(x, y)]).dense(), dense_hessian(model, x, y)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
