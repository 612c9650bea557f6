"""One data set as two tensors, padded and normalised as in the paper (Papyan 2020, Section 4 and Appendix D)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from repro.data.description import DataSet
from repro.data.subsets import choose_per_class


class Split(NamedTuple):
    """A training or test set, whole, on one device."""

    images: Tensor  # [N, channels, side, side] normalised
    labels: Tensor  # [N] int64, 0 .. classes - 1
    classes: int

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """Consecutive (images, labels) of at most `size` examples; views, in a fixed order."""
        return list(zip(self.images.split(size), self.labels.split(size), strict=True))

    def to(self, device: torch.device | str) -> Split:
        """The same set on another device."""
        return Split(self.images.to(device), self.labels.to(device), self.classes)


def load(dataset: DataSet, *, train: bool, n_per_class: int | None = None, root: Path, download: bool = False) -> Split:
    """A training or test set, or the paper's subset of it.

    Args:
        n_per_class: examples per class of the subset; None: the whole set.
        root: where torchvision's folders (MNIST/raw, cifar-10-batches-py, ...) are; only read, unless downloading.
        download: fetch into `root` what is not there.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, the data are not what `dataset` says, or a class has fewer than `n_per_class`
            examples.
    """
    images, labels = dataset.find_reader()(Path(root), train=train, download=download)
    check(dataset, images, labels, train=train)
    if n_per_class is not None:
        chosen = choose_per_class(labels, n_per_class, classes=dataset.classes, seed=dataset.subset_seed)
        images, labels = images[chosen], labels[chosen]
    return Split(normalise(dataset, images), torch.from_numpy(labels.astype(np.int64)), dataset.classes)


def check(dataset: DataSet, images: np.ndarray, labels: np.ndarray, *, train: bool) -> None:
    """Refuse data that are not what their description says.

    Raises:
        ValueError: naming what differs.
    """
    side = dataset.side - 2 * dataset.pad
    expected = (len(labels), dataset.channels, side, side)
    if images.dtype != np.uint8 or images.shape != expected:
        raise ValueError(
            f"{dataset.name}: its reader gives {images.dtype} images {list(images.shape)} for {len(labels)} labels, "
            f"but uint8 images {list(expected)} belong to channels={dataset.channels}, side={dataset.side} and "
            f"pad={dataset.pad} of its settings"
        )
    if not len(labels) or not 0 <= labels.min() <= labels.max() < dataset.classes:
        found = f"labels {labels.min()} to {labels.max()}" if len(labels) else "no labels"
        raise ValueError(f"{dataset.name} has {found}, but its settings say {dataset.classes} classes")
    if not train and len(labels) != dataset.test_examples:
        raise ValueError(
            f"{dataset.name} has {len(labels)} test examples, but its settings say "
            f"test_examples={dataset.test_examples}"
        )


def normalise(dataset: DataSet, images: np.ndarray) -> Tensor:  # [N, channels, H, W] -> [N, channels, side, side]
    """Pixels / 255, padded with zeros, then (x − mean) / std; uint8 in, float32 out."""
    x = torch.nn.functional.pad(torch.tensor(images).float() / 255, [dataset.pad] * 4)
    return (x - torch.tensor(dataset.mean).view(-1, 1, 1)) / torch.tensor(dataset.std).view(-1, 1, 1)
