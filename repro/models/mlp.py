"""Multilayer perceptron with batch norm before each ReLU (Papyan 2020, Section 7 and Appendix D)."""

from __future__ import annotations

from torch import Tensor, nn

from repro.models.conventions import initialise, scaled


class MLP(nn.Module):
    """`layers` linear layers; all but the last are followed by batch norm and ReLU.

    Args:
        channels, classes, side: of the images [B, channels, side, side] and of the logits.
        width: multiplies the 2048 neurons of a hidden layer; 1 is the paper's network.
        layers: linear layers in all, the last one included.
        bias: whether the hidden layers have a bias, which batch norm cancels. The last layer has one.
    """

    def __init__(self, *, channels: int, classes: int, width: float, layers: int, bias: bool, side: int = 32):
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers={layers}: a network has at least one linear layer")
        inputs, hidden = channels * side**2, scaled(2048, width)
        stack: list[nn.Module] = [nn.Flatten()]
        for _ in range(layers - 1):
            stack += [nn.Linear(inputs, hidden, bias=bias), nn.BatchNorm1d(hidden), nn.ReLU()]
            inputs = hidden
        self.layers = nn.Sequential(*stack, nn.Linear(inputs, classes))
        initialise(self, linear_std=0.01)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, side, side] -> [B, C]
        return self.layers(x)
