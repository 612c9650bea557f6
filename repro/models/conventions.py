"""What the paper's networks share: how a width multiplier scales a layer, and their initialisation."""

from __future__ import annotations

from torch import nn


def scaled(units: int, width: float) -> int:
    """The number of channels or neurons of a layer that has `units` of them in the paper (width 1)."""
    if not width > 0:
        raise ValueError(f"width={width} must be positive; 1.0 is the paper's network")
    return max(1, round(units * width))


def initialise(model: nn.Module, *, linear_std: float | None) -> None:
    """Draw the weights as the author's code does, from torch's global generator.

    Convolutions N(0, 2 / (k² out)), linear layers N(0, linear_std²) and all biases zero. Batch norm stays at scale
    one and shift zero. With `linear_std` None, linear layers keep torch's own initialisation.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear) and linear_std is not None:
            nn.init.normal_(layer.weight, std=linear_std)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
