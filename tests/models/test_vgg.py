"""VGG11 has the paper's layers and parameter counts."""

import pytest
from networks import build
from torch import nn


@pytest.mark.parametrize(
    ("channels", "classes", "count"), [(1, 10, 28_156_554), (3, 10, 28_157_706), (3, 100, 28_526_436)]
)
def test_parameter_counts(channels, classes, count):
    assert sum(p.numel() for p in build("vgg11", channels=channels, classes=classes).parameters()) == count


def test_depth():
    layers = list(build("vgg11", width=0.05).modules())
    assert sum(isinstance(layer, nn.Conv2d) for layer in layers) == 8
    assert sum(isinstance(layer, nn.Linear) for layer in layers) == 3
