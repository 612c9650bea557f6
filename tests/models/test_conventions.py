"""Initialisation against the moments it prescribes."""

import math

import pytest
import torch
from networks import NAMES, build
from torch import nn


def layers(name, kind):
    torch.manual_seed(0)
    model = build(name, channels=3, width=0.5)
    return [layer for layer in model.modules() if isinstance(layer, kind)]


def assert_normal(weight, std):
    """Mean and standard deviation within five standard errors of N(0, std²), and no heavier or bounded tails."""
    n = weight.numel()
    assert abs(weight.mean()) < 5 * std / math.sqrt(n)
    assert abs(weight.std() / std - 1) < 5 / math.sqrt(2 * n)
    if n > 2000:
        assert (weight.abs() > 2 * std).float().mean() == pytest.approx(0.0455, abs=0.03)  # uniform: 0


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "densenet40"])
def test_convolutions(name):
    for conv in layers(name, nn.Conv2d):
        assert_normal(conv.weight, math.sqrt(2 / (conv.kernel_size[0] ** 2 * conv.out_channels)))
        assert (conv.bias is not None) == (name == "vgg11")
        if conv.bias is not None:
            assert not conv.bias.any()


@pytest.mark.parametrize("name", ["vgg11", "mlp"])
def test_linear_layers(name):
    *hidden, head = layers(name, nn.Linear)
    for layer in [*hidden, head]:
        assert_normal(layer.weight, 0.01)
    assert all(layer.bias is None for layer in hidden)
    assert not head.bias.any()


@pytest.mark.parametrize(("name", "zero_bias"), [("resnet18", False), ("densenet40", True)])
def test_heads_with_torchs_own_initialisation(name, zero_bias):
    (head,) = layers(name, nn.Linear)
    bound = 1 / math.sqrt(head.in_features)  # uniform within it
    assert 0.9 * bound < head.weight.abs().max() <= bound
    assert head.bias.any() != zero_bias


@pytest.mark.parametrize("name", NAMES)
def test_batch_norm(name):
    for bn in layers(name, nn.BatchNorm1d | nn.BatchNorm2d):
        assert (bn.weight == 1).all()
        assert not bn.bias.any()
        assert bn.momentum == 0.1
