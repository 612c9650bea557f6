"""Loaded splits: settings, padding, normalisation, subsets."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torchvision import transforms

from repro.data import DataSet, load
from repro.data.datasets import check, normalise
from repro.data.sources import DEBIAN

CONF = Path(__file__).parents[2] / "conf" / "data"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def described(name, **changes):
    return DataSet(**yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changes)


@pytest.mark.parametrize("name", NAMES)
def test_normalises_as_the_authors_transforms_do(name):
    dataset = described(name)
    side = dataset.side - 2 * dataset.pad
    images = np.random.default_rng(0).integers(0, 256, (2, dataset.channels, side, side), dtype=np.uint8)
    pipeline = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.Pad(dataset.pad),
            transforms.ToTensor(),
            transforms.Normalize(dataset.mean, dataset.std),
        ]
    )
    expected = torch.stack([pipeline(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images])
    assert expected.shape[2:] == (32, 32)
    assert torch.equal(normalise(dataset, images), expected)


@pytest.fixture
def embedded():
    return described("fashion_mnist_embedded")


def test_border_is_black_not_mean(embedded, tmp_path):
    split = load(embedded, train=True, n_per_class=1, root=tmp_path)
    assert (split.images[:, :, :2] == -1).all()  # (0 − 0.5) / 0.5; padding after normalising would give 0


def test_split_of_the_embedded_set(embedded, tmp_path):
    split = load(embedded, train=True, n_per_class=37, root=tmp_path / "nowhere", download=True)
    assert split.images.shape == (370, 1, 32, 32)
    assert split.images.dtype == torch.float32
    assert split.labels.tolist() == [c for c in range(10) for _ in range(37)]
    assert split.classes == 10
    assert len(load(embedded, train=False, root=tmp_path).labels) == 1000
    assert not (tmp_path / "nowhere").exists()


def test_batches_cover_the_split_in_order(embedded, tmp_path):
    split = load(embedded, train=True, n_per_class=10, root=tmp_path)
    batches = split.batches(32)
    assert [len(y) for _, y in batches] == [32, 32, 32, 4]
    assert torch.equal(torch.cat([x for x, _ in batches]), split.images)
    assert torch.equal(torch.cat([y for _, y in batches]), split.labels)
    assert split.to("cpu").batches(1000)[0][0].shape == split.images.shape


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.skipif(not DEBIAN["FashionMNIST"].exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_embedded_subsets_are_those_of_the_full_set(embedded, tmp_path, train):
    for n in (1, 10, 100, 150) if train else (1, 100):
        ours = load(embedded, train=train, n_per_class=n, root=tmp_path)
        full = load(described("fashion_mnist"), train=train, n_per_class=n, root=tmp_path)
        assert torch.equal(ours.images, full.images)
        assert torch.equal(ours.labels, full.labels)


@pytest.mark.skipif(not DEBIAN["FashionMNIST"].exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_full_fashion_mnist(tmp_path):
    split = load(described("fashion_mnist"), train=False, root=tmp_path)
    assert split.images.shape == (10000, 1, 32, 32)
    assert split.labels.bincount().tolist() == [1000] * 10
    assert split.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]  # as published


def test_subset_seed_changes_the_subset(embedded, tmp_path):
    first, second = (
        load(described("fashion_mnist_embedded", subset_seed=s), train=True, n_per_class=10, root=tmp_path)
        for s in (0, 1)
    )
    assert not torch.equal(first.images, second.images)


def test_more_examples_than_there_are(embedded, tmp_path):
    with pytest.raises(ValueError, match="n_per_class=151, but class 0 has only 150 examples"):
        load(embedded, train=True, n_per_class=151, root=tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"classes": 5}, "labels 0 to 9, but its settings say 5 classes"),
        ({"channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}, r"\[1000, 1, 28, 28\] .* \[1000, 3, 28, 28\] belong"),
        ({"side": 28}, r"\[1000, 1, 24, 24\] belong to channels=1, side=28 and pad=2"),
        ({"test_examples": 10000}, "has 1000 test examples, but its settings say test_examples=10000"),
    ],
)
def test_settings_that_contradict_the_files_are_refused(changes, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        load(described("fashion_mnist_embedded", **changes), train=False, root=tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (np.zeros((3, 1, 28, 28)), [0, 1, 2], "float64 images .* uint8 images"),
        (np.zeros((3, 28, 28), np.uint8), [0, 1, 2], r"images \[3, 28, 28\] for 3 labels"),
        (np.zeros((3, 1, 28, 28), np.uint8), [0, 1], r"images \[3, 1, 28, 28\] for 2 labels"),
        (np.zeros((0, 1, 28, 28), np.uint8), [], "has no labels"),
        (np.zeros((1, 1, 28, 28), np.uint8), [-1], "labels -1 to -1"),
    ],
)
def test_what_a_reader_may_get_wrong(embedded, images, labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        check(embedded, images, np.array(labels, dtype=np.int64), train=True)


def test_embedded_set_loads_without_torchvision():
    code = """
import sys, yaml
from repro.data import DataSet, load
load(DataSet(**yaml.safe_load(open(sys.argv[1]))), train=True, n_per_class=10, root="nowhere")
sys.exit("torchvision" in sys.modules)
"""
    path = CONF / "fashion_mnist_embedded.yaml"
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 0
