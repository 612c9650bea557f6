"""DenseNet40 with growth rate 12, no bottleneck, no compression (companion paper, Papyan 2019; Huang et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repro.models.conventions import initialise, scaled

LAYERS_PER_BLOCK = 12  # three blocks, two transitions, the stem and the head: 40 layers


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 3x3 convolution; its output is appended to its input."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, H, W] -> [B, channels + growth, H, W]
        return torch.cat([x, self.conv(self.relu(self.bn(x)))], dim=1)


class DenseNet40(nn.Module):
    """A 3x3 stem, three dense blocks with 1x1 transitions and 2x2 average pooling between, a linear layer.

    Args:
        channels, classes: of the images and of the logits.
        width: multiplies the growth rate 12; the stem has twice the growth rate; 1 is the paper's network.
    """

    def __init__(self, *, channels: int, classes: int, width: float):
        super().__init__()
        growth = scaled(12, width)
        features = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 3, padding=1, bias=False)]
        for block in range(3):
            if block > 0:
                layers += [nn.BatchNorm2d(features), nn.ReLU(), nn.Conv2d(features, features, 1, bias=False)]
                layers += [nn.AvgPool2d(2)]
            for _ in range(LAYERS_PER_BLOCK):
                layers += [DenseLayer(features, growth)]
                features += growth
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(features), nn.ReLU())
        self.head = nn.Linear(features, classes)
        initialise(self, linear_std=None)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, 32, 32] -> [B, C]
        return self.head(self.features(x).mean(dim=(2, 3)))
