"""VGG11 with batch norm in place of dropout (Papyan 2020, Appendix D; Simonyan and Zisserman 2015, configuration A)."""

from __future__ import annotations

from torch import Tensor, nn

from repro.models.conventions import initialise, scaled

PLAN = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")


class VGG11(nn.Module):
    """Eight 3x3 convolutions with bias, five 2x2 max-pools (32x32 -> 1x1), and a classifier of 4096-wide layers.

    Args:
        channels, classes: of the images and of the logits.
        width: multiplies all layers' widths, the classifier's too; 1 is the paper's network.
    """

    def __init__(self, *, channels: int, classes: int, width: float):
        super().__init__()
        layers: list[nn.Module] = []
        for entry in PLAN:
            if isinstance(entry, str):
                layers += [nn.MaxPool2d(2)]
            else:
                out = scaled(entry, width)
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
                channels = out
        self.features = nn.Sequential(*layers)
        hidden = scaled(4096, width)
        self.classifier = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, classes),
        )  # fmt: skip
        initialise(self, linear_std=0.01)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, 32, 32] -> [B, C]
        return self.classifier(self.features(x).flatten(1))
