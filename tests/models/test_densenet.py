"""DenseNet40 has its 40 layers and its parameter count."""

import pytest
from networks import build
from torch import nn


def expected_count(channels, classes):
    total, features = 9 * channels * 24, 24
    for block in range(3):
        total += sum(2 * c + 9 * c * 12 for c in range(features, features + 144, 12))
        features += 144
        total += 2 * features + (features**2 if block < 2 else features * classes + classes)
    return total


@pytest.mark.parametrize("channels", [1, 3])
def test_parameter_counts(channels):
    count = sum(p.numel() for p in build("densenet40", channels=channels).parameters())
    assert count == expected_count(channels, 10)


def test_depth():
    layers = list(build("densenet40", width=0.05).modules())
    assert sum(isinstance(layer, nn.Conv2d) for layer in layers) == 39
    assert sum(isinstance(layer, nn.Linear) for layer in layers) == 1
