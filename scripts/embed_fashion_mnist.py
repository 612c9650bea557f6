"""Remake repro/data/embedded/fashion_mnist.npz from the full Fashion-MNIST.

    python scripts/embed_fashion_mnist.py data      # a folder with FashionMNIST/raw/, or the Debian package installed

Of each class it takes what the paper's draw takes first: 150 of the training and 100 of the test set. It stores the
k-th drawn where the same draw among only 150 (or 100) examples looks k-th, so that `load(n_per_class=n)` gives the
same n images of the embedded as of the full training set: exactly the paper's subsets.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

from repro.data.sources import EMBEDDED, read_fashion_mnist
from repro.data.subsets import choose_per_class
from repro.storage.files import write_atomically

PER_CLASS = {"train": 150, "test": 100}
CLASSES, SEED = 10, 0  # the paper's draw


def embedded_indices(labels: np.ndarray, count: int) -> np.ndarray:  # [N] -> [count * CLASSES]
    """Which examples are stored, in the order in which they are stored."""
    drawn = choose_per_class(labels, count, classes=CLASSES, seed=SEED)
    places = choose_per_class(labels[drawn], count, classes=CLASSES, seed=SEED)
    stored = np.empty_like(drawn)
    stored[places] = drawn
    return stored


def main(root: Path) -> None:
    arrays = {}
    for part, count in PER_CLASS.items():
        images, labels = read_fashion_mnist(root, train=part == "train", download=False)
        chosen = embedded_indices(labels, count)
        arrays |= {f"{part}_images": images[chosen, 0], f"{part}_labels": labels[chosen].astype(np.uint8)}

    def write(path: Path) -> None:
        with path.open("wb") as file:  # savez would add .npz to a name
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_atomically(EMBEDDED, write)
    print(f"{EMBEDDED}: {EMBEDDED.stat().st_size} bytes, md5 {hashlib.md5(EMBEDDED.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data"))
