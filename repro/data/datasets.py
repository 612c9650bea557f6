"""One data set as two tensors, padded and normalised as in the paper (Papyan 2020, Section 4 and Appendix D)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from repro.data.sources import Raw, read_cifar, read_embedded, read_mnist
from repro.data.subsets import choose_per_class

# Each reader: (root, train=..., download=...) -> uint8 images [N, channels, H, W], int64 labels [N].
READERS: dict[str, Callable[..., Raw]] = {
    "mnist": partial(read_mnist, "MNIST"),
    "fashion_mnist": partial(read_mnist, "FashionMNIST"),
    "fashion_mnist_embedded": read_embedded,
    "cifar10": partial(read_cifar, "CIFAR10"),
    "cifar100": partial(read_cifar, "CIFAR100"),
}


class Split(NamedTuple):
    """A training or test set, whole, on one device."""

    images: Tensor  # [N, channels, 32, 32] normalised
    labels: Tensor  # [N] int64, 0 .. classes - 1
    classes: int

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """Consecutive (images, labels) of at most `size` examples; views, in a fixed order."""
        return list(zip(self.images.split(size), self.labels.split(size), strict=True))

    def to(self, device: torch.device | str) -> Split:
        """The same set on another device."""
        return Split(self.images.to(device), self.labels.to(device), self.classes)


@dataclass(frozen=True)
class DataSet:
    """What a file conf/data/<name>.yaml says; its keys are these fields.

    Attributes:
        name: key of READERS.
        mean, std: of each channel, of pixels in [0, 1], subtracted and divided by AFTER padding.
        pad: width of the border of zero (black) pixels.
        sizes: examples per class of the paper's subsets (`n_per_class: size3` means sizes[3]).
        subset_seed: of the draw of a subset (0 in the paper).
    """

    name: str
    classes: int
    channels: int
    mean: Sequence[float]
    std: Sequence[float]
    pad: int
    sizes: Sequence[int]
    subset_seed: int

    def __post_init__(self) -> None:
        if self.name not in READERS:
            near = difflib.get_close_matches(self.name, READERS, n=3) or READERS
            raise ValueError(f"there is no data set {self.name!r}; did you mean one of {', '.join(near)}?")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"{self.name}: mean {self.mean} and std {self.std} must have {self.channels} values each")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> DataSet:
        """Check the keys of a configuration and make it a DataSet.

        Raises:
            ValueError: a key is missing, unknown, or has an impossible value.
        """
        known, given = {field.name for field in fields(cls)}, {str(key) for key in settings}
        if known != given:
            raise ValueError(f"data: missing keys {sorted(known - given)}, unknown keys {sorted(given - known)}")
        return cls(**{str(key): value for key, value in settings.items()})

    def check(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Refuse data that are not what the settings say."""
        if images.shape[1] != self.channels or not 0 <= labels.min() <= labels.max() < self.classes:
            raise ValueError(
                f"{self.name} has {images.shape[1]} channels and labels {labels.min()} to {labels.max()}, "
                f"but its settings say {self.channels} channels and {self.classes} classes"
            )

    def normalise(self, images: np.ndarray) -> Tensor:  # [N, channels, H, W] uint8 -> [N, channels, H + 2 pad, ...]
        """Pixels / 255, padded with zeros, then (x − mean) / std; float32."""
        x = torch.nn.functional.pad(torch.tensor(images).float() / 255, [self.pad] * 4)
        return (x - torch.tensor(self.mean).view(-1, 1, 1)) / torch.tensor(self.std).view(-1, 1, 1)


def load(
    settings: Mapping[str, Any], *, train: bool, n_per_class: int | None = None, root: Path, download: bool = False
) -> Split:
    """A training or test set, or the paper's subset of it.

    Args:
        settings: the content of conf/data/<name>.yaml (see DataSet).
        n_per_class: examples per class of the subset; None: the whole set.
        root: where torchvision's folders (MNIST/raw, cifar-10-batches-py, ...) are; only read, unless downloading.
        download: fetch into `root` what is not there.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, a setting is wrong, or a class has fewer than `n_per_class` examples.
    """
    dataset = DataSet.from_settings(settings)
    images, labels = READERS[dataset.name](Path(root), train=train, download=download)
    dataset.check(images, labels)
    if n_per_class is not None:
        chosen = choose_per_class(labels, n_per_class, classes=dataset.classes, seed=dataset.subset_seed)
        images, labels = images[chosen], labels[chosen]
    return Split(dataset.normalise(images), torch.from_numpy(labels), dataset.classes)
