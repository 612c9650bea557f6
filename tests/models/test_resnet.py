"""ResNet18 has the paper's layers and parameter counts."""

import pytest
from networks import build
from torch import nn


@pytest.mark.parametrize(
    ("channels", "classes", "count"), [(1, 10, 11_172_810), (3, 10, 11_173_962), (3, 100, 11_220_132)]
)
def test_parameter_counts(channels, classes, count):
    assert sum(p.numel() for p in build("resnet18", channels=channels, classes=classes).parameters()) == count


def test_depth():
    convs = [m for m in build("resnet18", width=0.05).modules() if isinstance(m, nn.Conv2d)]
    assert [conv.kernel_size for conv in convs].count((3, 3)) == 17
    assert [conv.kernel_size for conv in convs].count((1, 1)) == 3
    assert all(conv.bias is None for conv in convs)
