"""ResNet18 for small images (Papyan 2020, Appendix D; He et al. 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from repro.models.conventions import initialise, scaled


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, H, W] -> [B, out, H / stride, W / stride]
        h = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(h)) + self.shortcut(x))


class ResNet18(nn.Module):
    """A 3x3 stem without pooling, four stages of two basic blocks, average pooling, a linear layer.

    Args:
        channels, classes: of the images and of the logits.
        width: multiplies the 64, 128, 256 and 512 channels; 1 is the paper's network.
    """

    def __init__(self, *, channels: int, classes: int, width: float):
        super().__init__()
        widths = [scaled(units, width) for units in (64, 128, 256, 512)]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        blocks, previous = [], widths[0]
        for out, stride in zip(widths, (1, 2, 2, 2)):
            blocks += [BasicBlock(previous, out, stride), BasicBlock(out, out, 1)]
            previous = out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(previous, classes)
        initialise(self, linear_std=None)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, 32, 32] -> [B, C]
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))
