"""Finding, checking and reading data files, on small files in the true formats."""

import gzip
import hashlib
import pickle
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from torchvision.datasets import MNIST

from repro.data import sources
from repro.data.sources import read_cifar, read_embedded, read_idx_set


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (7, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": rng.integers(0, 10, 7, dtype=np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (3, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": rng.integers(0, 10, 3, dtype=np.uint8),
    }


@pytest.fixture
def mnist(tmp_path, monkeypatch, arrays):
    """A data folder with small MNIST and Fashion-MNIST files, whose checksums are the expected ones."""
    monkeypatch.setattr(sources, "DEBIAN", {"FashionMNIST": tmp_path / "debian"})
    for name in ("MNIST", "FashionMNIST"):
        folder = tmp_path / name / "raw"
        folder.mkdir(parents=True)
        for file, array in arrays.items():
            (folder / file).write_bytes(idx(array))
            monkeypatch.setitem(sources.MD5[name], file, md5(idx(array)))
    return tmp_path


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
@pytest.mark.parametrize(("train", "part"), [(True, "train"), (False, "t10k")])
def test_reads_idx_files(mnist, arrays, name, train, part):
    read = {"MNIST": sources.read_mnist, "FashionMNIST": sources.read_fashion_mnist}[name]
    images, labels = read(mnist, train=train, download=False)
    assert (images == arrays[f"{part}-images-idx3-ubyte"][:, None]).all()
    assert (labels == arrays[f"{part}-labels-idx1-ubyte"]).all()
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64


def test_reads_what_torchvision_reads(mnist):
    images, labels = read_idx_set("MNIST", mnist, train=True, download=False)
    theirs = MNIST(mnist, train=True)
    assert torch.equal(torch.tensor(images[:, 0]), theirs.data)
    assert torch.equal(torch.tensor(labels), theirs.targets)


def compress(folder):
    for path in list(folder.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def test_reads_gzipped_files(mnist):
    expected = read_idx_set("MNIST", mnist, train=True, download=False)
    compress(mnist / "MNIST" / "raw")
    found = read_idx_set("MNIST", mnist, train=True, download=False)
    assert all((a == b).all() for a, b in zip(found, expected))


def test_finds_debians_package(mnist):
    expected = read_idx_set("FashionMNIST", mnist, train=True, download=False)
    compress(mnist / "FashionMNIST" / "raw")
    (mnist / "FashionMNIST" / "raw").rename(mnist / "debian")
    found = read_idx_set("FashionMNIST", mnist, train=True, download=True)  # nothing is missing, nothing is downloaded
    assert all((a == b).all() for a, b in zip(found, expected))


def test_missing_file_is_named(mnist):
    path = mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{path} \(md5 {sources.MD5['MNIST'][path.name]}.*download=true"):
        read_idx_set("MNIST", mnist, train=False, download=False)


def test_wrong_content_is_refused(mnist):
    path = mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match=rf"{path} has the wrong content .*{sources.MD5['MNIST'][path.name]}; delete"):
        read_idx_set("MNIST", mnist, train=True, download=False)


def test_truncated_plain_file_is_refused(mnist):
    path = mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="wrong content"):
        read_idx_set("MNIST", mnist, train=True, download=False)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:40] + bytes(40) + b[80:], lambda b: b"no"])
def test_damaged_gzip_is_refused(mnist, damage):
    folder = mnist / "MNIST" / "raw"
    compress(folder)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{path} cannot be read .*expected is md5"):
        read_idx_set("MNIST", mnist, train=True, download=False)


class Downloader:
    """Stands for a torchvision data set: `download=True` writes its files, or fails."""

    def __init__(self, write):
        self.write, self.calls = write, 0

    def __call__(self, root, download):
        assert download
        self.calls += 1
        self.write(root)


def test_downloads_only_what_is_missing(mnist, tmp_path, monkeypatch):
    full = mnist / "MNIST" / "raw"
    kept = {path.name: path.read_bytes() for path in full.iterdir()}

    def write(root):
        folder = type(full)(root) / "MNIST" / "raw"
        folder.mkdir(parents=True)
        for name, content in kept.items():
            (folder / name).write_bytes(content)

    downloader = Downloader(write)
    monkeypatch.setattr(torchvision.datasets, "MNIST", downloader)
    new = tmp_path / "new"
    for _ in range(2):
        images, _ = read_idx_set("MNIST", new, train=True, download=True)
    assert len(images) == 7
    assert downloader.calls == 1
    assert [path.name for path in new.iterdir()] == ["MNIST"]  # the unfinished folder is gone


@pytest.mark.parametrize("error", [RuntimeError("Error downloading\n x"), OSError("Network is unreachable")])
def test_failed_download_is_one_sentence(tmp_path, monkeypatch, error):
    def fail(root):
        raise error

    monkeypatch.setattr(torchvision.datasets, "MNIST", Downloader(fail))
    with pytest.raises(FileNotFoundError, match=r"MNIST could not be downloaded into .*; copy its files to") as caught:
        read_idx_set("MNIST", tmp_path, train=True, download=True)
    assert "\n" not in str(caught.value)


def test_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        read_idx_set("MNIST", tmp_path / "file", train=True, download=True)


def test_reads_from_a_read_only_folder(mnist):
    folder = mnist / "MNIST" / "raw"
    everything = [mnist, folder.parent, folder, *folder.iterdir()]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = [path.stat().st_mtime_ns for path in everything]  # root may write anyway, and would show here
    try:
        images, _ = read_idx_set("MNIST", mnist, train=True, download=True)
        assert len(images) == 7
        assert [path.stat().st_mtime_ns for path in everything] == before
    finally:
        for path in everything:
            path.chmod(0o755)


@pytest.fixture(params=["CIFAR10", "CIFAR100"])
def cifar(request, tmp_path, monkeypatch):
    """A folder with small CIFAR files in the pickled format, whose checksums torchvision is told to expect."""
    kind, rng = getattr(torchvision.datasets, request.param), np.random.default_rng(0)
    folder = tmp_path / kind.base_folder
    folder.mkdir()

    def write(file, content):
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
        return md5((folder / file).read_bytes())

    rows = {}
    for part in ("train_list", "test_list"):
        entries = []
        for file, _ in getattr(kind, part):
            rows[file] = rng.integers(0, 256, (4, 3072), dtype=np.uint8), rng.integers(0, 10, 4).tolist()
            key = "labels" if request.param == "CIFAR10" else "fine_labels"
            entries.append([file, write(file, {"data": rows[file][0], key: rows[file][1]})])
        monkeypatch.setattr(kind, part, entries)
    names = write(kind.meta["filename"], {kind.meta["key"]: [f"class {c}" for c in range(10)]})
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": names})
    return SimpleNamespace(name=request.param, root=tmp_path, folder=folder, kind=kind, rows=rows)


@pytest.mark.parametrize("train", [True, False])
def test_reads_cifar(cifar, train):
    read = {"CIFAR10": sources.read_cifar10, "CIFAR100": sources.read_cifar100}[cifar.name]
    images, labels = read(cifar.root, train=train, download=False)
    parts = [cifar.rows[file] for file, _ in (cifar.kind.train_list if train else cifar.kind.test_list)]
    assert (images == np.concatenate([data for data, _ in parts]).reshape(-1, 3, 32, 32)).all()
    assert labels.tolist() == [label for _, labels in parts for label in labels]
    assert labels.dtype == np.int64


def test_missing_cifar_file_is_named(cifar):
    file, checksum = cifar.kind.test_list[0]
    (cifar.folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{cifar.folder / file} \(md5 {checksum}\) is not there; unpack"):
        read_cifar(cifar.name, cifar.root, train=True, download=False)


def test_tampered_cifar_file_is_never_unpickled(cifar, monkeypatch):
    file, checksum = cifar.kind.train_list[0]
    (cifar.folder / file).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    monkeypatch.setattr(pickle, "load", lambda *a, **k: pytest.fail("a tampered file was unpickled"))
    with pytest.raises(ValueError, match=rf"{file} has the wrong content .*expected is md5 {checksum}"):
        read_cifar(cifar.name, cifar.root, train=True, download=False)


def test_torchvision_itself_checks_before_unpickling(cifar, monkeypatch):
    """The second lock: were the file exchanged after our check."""
    (cifar.folder / cifar.kind.train_list[0][0]).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    monkeypatch.setattr(pickle, "load", lambda *a, **k: pytest.fail("a tampered file was unpickled"))
    with pytest.raises(RuntimeError, match="corrupted"):
        cifar.kind(cifar.root, train=True)


@pytest.mark.parametrize(("train", "count"), [(True, 150), (False, 100)])
def test_embedded_set_is_balanced(tmp_path, train, count):
    images, labels = read_embedded(tmp_path, train=train, download=False)
    assert images.shape == (10 * count, 1, 28, 28)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [count] * 10


@pytest.mark.parametrize("content", [None, b"PK damaged"])
def test_missing_or_damaged_embedded_set_is_named(tmp_path, monkeypatch, content):
    path = tmp_path / "fashion_mnist.npz"
    if content:
        path.write_bytes(content)
    monkeypatch.setattr(sources, "EMBEDDED", path)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"{path}.*{sources.EMBEDDED_MD5}.*install the package"):
        read_embedded(tmp_path, train=True, download=False)


def test_embedded_files_are_small_and_licensed():
    assert sources.EMBEDDED.stat().st_size < 2e6
    assert "Zalando SE" in sources.EMBEDDED.with_name("LICENSE").read_text()
