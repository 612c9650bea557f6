"""Gradients of single examples against the dense Jacobian, and against one backward pass for each example."""

import warnings
from functools import partial

import pytest
import torch
from oracles import NETWORKS, dense_jacobian, tiny
from torch import nn
from torchvision import models

from repro.curvature.example_gradients import ExampleGradients


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_are_those_of_the_jacobian(name):
    model, x, _ = tiny(name)
    names = [name for name, _ in model.named_parameters()]
    cotangents = torch.randn(7, 2, 3, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    expected = torch.einsum("bkc,bcp->bkp", cotangents, dense_jacobian(model, x))
    torch.testing.assert_close(ExampleGradients(model, names)(x, cotangents), expected)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.head = nn.LSTM(48, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.rows(x.transpose(1, 2).flatten(2))[0][:, -1])


ARCHITECTURES = {
    "lstm": Recurrent,
    "mobilenet": partial(models.mobilenet_v3_small, num_classes=3, width_mult=0.1),
    "vit": partial(models.VisionTransformer, 16, 8, 1, 2, 8, 12, num_classes=3),
    "encoder": lambda: nn.Sequential(
        nn.Flatten(1, 2), nn.TransformerEncoderLayer(16, 2, 8, batch_first=True), nn.Flatten(), nn.Linear(768, 3)
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ARCHITECTURES[name]().double().eval()
        x, u = torch.randn(3, 3, 16, 16, dtype=torch.float64), torch.randn(3, 1, 3, dtype=torch.float64)
    parameters = dict(model.named_parameters())
    gradients = ExampleGradients(model, list(parameters))
    found = gradients(x, u)
    assert gradients.together == (name != "lstm")
    for i in range(3):
        gradients = torch.autograd.grad(model(x[i : i + 1]), list(parameters.values()), u[i])
        expected = torch.cat([gradient.flatten() for gradient in gradients])
        torch.testing.assert_close(found[i, 0], expected, rtol=1e-9, atol=1e-12)


def test_some_parameters_in_the_order_asked_for():
    model, x, _ = tiny("mlp_bn")
    u = torch.ones(7, 1, 3, dtype=x.dtype)
    both = ExampleGradients(model, ["3.weight", "0.bias"])(x, u)
    apart = [ExampleGradients(model, [name])(x, u) for name in ("3.weight", "0.bias")]
    torch.testing.assert_close(both, torch.cat(apart, dim=2))


def test_parameters_that_are_not_used_have_zero_rows():
    model, x, _ = tiny("tied")
    u = torch.ones(7, 2, 3, dtype=x.dtype)
    assert (ExampleGradients(model, ["0.unused"])(x, u) == 0).all()


def test_attention_is_left_as_it_was():
    before = torch.backends.mha.get_fastpath_enabled()
    model, x, _ = tiny("attention")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ExampleGradients(model, ["0.head.bias"])(x, torch.ones(7, 1, 3, dtype=x.dtype))
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_a_fault_of_the_network_is_its_own():
    model, _, _ = tiny("mlp_bn")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ExampleGradients(model, ["0.bias"])(torch.zeros(2, 9).double(), torch.ones(2, 1, 3).double())
