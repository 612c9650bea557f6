"""The multilayer perceptron: its depth, and the images it is made for."""

import pytest
import torch
from networks import build
from torch import nn


@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 100)])
def test_parameter_counts(channels, classes):  # 7 hidden layers of 2048 without bias, 7 batch norms, the head
    hidden = channels * 1024 * 2048 + 6 * 2048**2 + 7 * 2 * 2048
    network = build("mlp", channels=channels, classes=classes)
    assert sum(p.numel() for p in network.parameters()) == hidden + 2048 * classes + classes


def test_depth_is_a_setting():
    for layers in (1, 4, 9):
        network = build("mlp", width=0.01, layers=layers, bias=True)
        linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
        assert len(linear) == layers
        assert all(layer.bias is not None for layer in linear)
    with pytest.raises(ValueError, match="layers=0"):
        build("mlp", width=0.01, layers=0)


def test_images_of_another_side():
    assert build("mlp", width=0.01, channels=2, side=8).eval()(torch.zeros(3, 2, 8, 8)).shape == (3, 10)
