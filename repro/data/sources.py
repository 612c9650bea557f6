"""The readers of the data sets: finding, checking and reading their files.

Each is (root, *, train, download) -> (images uint8 [N, channels, H, W], labels int64 [N]); conf/data names them.
MNIST and Fashion-MNIST are read here, plain or gzipped, wherever they lie; torchvision downloads them, and downloads,
checks and reads CIFAR. It is imported only then, because its import takes longer than reading the embedded set.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tempfile
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

# md5 of the files once unpacked. torchvision states that of one packing; Debian's, of the same content, differs.
MD5 = {
    "MNIST": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
DEBIAN = {"FashionMNIST": Path("/usr/share/datasets/fashion-mnist")}  # of the package dataset-fashion-mnist
EMBEDDED, EMBEDDED_MD5 = Path(__file__).with_name("embedded") / "fashion_mnist.npz", "82a193073b6b3d928ad26976f549da0b"

Raw = tuple[np.ndarray, np.ndarray]  # uint8 images [N, channels, H, W], int64 labels [N]


def read_embedded(root: Path, *, train: bool, download: bool) -> Raw:
    """The subset of Fashion-MNIST inside this package: 150 training and 100 test images a class.

    They lie in such an order that the paper's draw of n <= 150 from them gives the same images as its draw from
    the full set (scripts/embed_fashion_mnist.py). `root` and `download` are not used: no file but our own is read.
    """
    if not EMBEDDED.is_file():
        raise FileNotFoundError(f"{EMBEDDED} (md5 {EMBEDDED_MD5}) is not there; install the package again")
    content = EMBEDDED.read_bytes()
    if (found := hashlib.md5(content).hexdigest()) != EMBEDDED_MD5:
        raise ValueError(f"{EMBEDDED} has md5 {found}, expected is {EMBEDDED_MD5}; install the package again")
    part = "train" if train else "test"
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays[f"{part}_images"][:, None], arrays[f"{part}_labels"].astype(np.int64)


def read_mnist(root: Path, *, train: bool, download: bool) -> Raw:
    """MNIST: 60 000 training and 10 000 test images of handwritten digits."""
    return read_idx_set("MNIST", root, train=train, download=download)


def read_fashion_mnist(root: Path, *, train: bool, download: bool) -> Raw:
    """Fashion-MNIST: 60 000 training and 10 000 test images of clothing."""
    return read_idx_set("FashionMNIST", root, train=train, download=download)


def read_cifar10(root: Path, *, train: bool, download: bool) -> Raw:
    """CIFAR10: 50 000 training and 10 000 test images in 10 classes."""
    return read_cifar("CIFAR10", root, train=train, download=download)


def read_cifar100(root: Path, *, train: bool, download: bool) -> Raw:
    """CIFAR100: 50 000 training and 10 000 test images in 100 classes."""
    return read_cifar("CIFAR100", root, train=train, download=download)


def read_idx_set(name: str, root: Path, *, train: bool, download: bool) -> Raw:
    """MNIST or Fashion-MNIST in the idx format of http://yann.lecun.com/exdb/mnist.

    Raises:
        FileNotFoundError, ValueError: a file is missing, or is not the published one.
    """
    part = "train" if train else "t10k"
    names = [f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"]
    folders = [root / name / "raw", *([DEBIAN[name]] if name in DEBIAN else [])]
    if download and not all(find(folders, file) for file in names):
        fetch(name, root, folder=f"{name}/raw")
    images, labels = (read_idx(folders, file, md5=MD5[name][file]) for file in names)
    return images[:, None], labels.astype(np.int64)


def find(folders: list[Path], file: str) -> Path | None:
    """The first of `file` and `file`.gz in `folders`."""
    return next((path for folder in folders for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def read_idx(folders: list[Path], file: str, *, md5: str) -> np.ndarray:
    """The array in an idx file of unsigned bytes: 00 00 08 ndim, then ndim big-endian int32 sizes, then the bytes."""
    path = find(folders, file)
    if path is None:
        raise FileNotFoundError(
            f"{folders[0] / file} (md5 {md5}, or the same with .gz) is not there; copy it there, or set download=true"
        )
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(damaged(path, f"cannot be read ({error})", md5)) from error
    if (found := hashlib.md5(content).hexdigest()) != md5:
        raise ValueError(damaged(path, f"has the wrong content (md5 {found} unpacked)", md5))
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def damaged(path: Path, how: str, md5: str) -> str:
    """One sentence about a damaged file."""
    return f"{path} {how}, expected is md5 {md5}; delete the file, then copy it again or set download=true"


def read_cifar(name: str, root: Path, *, train: bool, download: bool) -> Raw:
    """CIFAR10 or CIFAR100 through torchvision, which compares every file's md5 before it unpickles any.

    Raises:
        FileNotFoundError, ValueError: a file is missing, or is not the published one.
    """
    from torchvision import datasets

    kind = getattr(datasets, name)
    folder = root / kind.base_folder
    published = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    if download and not all((folder / file).is_file() for file, _ in published):
        fetch(name, root, folder=kind.base_folder)
    for file, md5 in published:
        path = folder / file
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} (md5 {md5}) is not there; unpack {kind.filename} in {root}, or set download=true"
            )
        if (found := hashlib.md5(path.read_bytes()).hexdigest()) != md5:
            raise ValueError(damaged(path, f"has the wrong content (md5 {found})", md5))
    loaded: Any = kind(root, train=train)
    return np.ascontiguousarray(loaded.data.transpose(0, 3, 1, 2)), np.array(loaded.targets, dtype=np.int64)


def fetch(name: str, root: Path, *, folder: str) -> None:
    """Download with torchvision to a folder of our own in `root`, then move each file to its place, complete.

    So several jobs may try at once, and a killed one leaves nothing that looks like a data set.

    Raises:
        FileNotFoundError: the download did not succeed.
    """
    from torchvision import datasets

    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=root) as unfinished:
            getattr(datasets, name)(unfinished, download=True)
            for path in filter(Path.is_file, (Path(unfinished) / folder).rglob("*")):
                place = root / path.relative_to(unfinished)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"{name} could not be downloaded into {root} ({reason}); copy its files to {root / folder}"
        ) from error
