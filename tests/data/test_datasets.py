"""Loaded splits: settings, padding, normalisation, subsets."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torchvision import transforms

from repro.data import DataSet, load, paper_sizes
from repro.data.datasets import READERS
from repro.data.sources import DEBIAN

CONF = Path(__file__).parents[2] / "conf" / "data"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def settings(name):
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def test_every_reader_has_its_file():
    assert sorted(READERS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_keys_bind(name):
    dataset = DataSet.from_settings(settings(name))
    assert dataset.name == name
    assert dataset.subset_seed == 0  # the paper's


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_the_papers(name):
    expected = paper_sizes(500 if name == "cifar100" else 5000)
    if name == "fashion_mnist_embedded":
        expected = [size for size in expected if size <= 150]
    assert settings(name)["sizes"] == expected


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("mnist", [0.1307], [0.3081]),
        ("fashion_mnist", [0.5], [0.5]),
        ("fashion_mnist_embedded", [0.5], [0.5]),
        ("cifar10", [125.3 / 255, 123.0 / 255, 113.9 / 255], [63.0 / 255, 62.1 / 255, 66.7 / 255]),
        ("cifar100", [129.3 / 255, 124.1 / 255, 112.4 / 255], [68.2 / 255, 65.4 / 255, 70.4 / 255]),
    ],
)
def test_constants_are_the_papers(name, mean, std):
    assert settings(name)["mean"] == mean
    assert settings(name)["std"] == std


@pytest.mark.parametrize("name", NAMES)
def test_normalises_as_the_authors_transforms_do(name):
    dataset = DataSet.from_settings(settings(name))
    side = 32 - 2 * dataset.pad
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
    assert torch.equal(dataset.normalise(images), expected)


@pytest.fixture
def embedded():
    return settings("fashion_mnist_embedded")


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
        full = load(settings("fashion_mnist"), train=train, n_per_class=n, root=tmp_path)
        assert torch.equal(ours.images, full.images)
        assert torch.equal(ours.labels, full.labels)


@pytest.mark.skipif(not DEBIAN["FashionMNIST"].exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_full_fashion_mnist(tmp_path):
    split = load(settings("fashion_mnist"), train=False, root=tmp_path)
    assert split.images.shape == (10000, 1, 32, 32)
    assert split.labels.bincount().tolist() == [1000] * 10
    assert split.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]  # as published


def test_subset_seed_changes_the_subset(embedded, tmp_path):
    first, second = (load(embedded | {"subset_seed": s}, train=True, n_per_class=10, root=tmp_path) for s in (0, 1))
    assert not torch.equal(first.images, second.images)


def test_more_examples_than_there_are(embedded, tmp_path):
    with pytest.raises(ValueError, match="n_per_class=151, but class 0 has only 150 examples"):
        load(embedded, train=True, n_per_class=151, root=tmp_path)


def test_unknown_data_set_names_the_near_ones(embedded):
    with pytest.raises(ValueError, match="no data set 'fashion_mnst'; did you mean one of fashion_mnist"):
        DataSet.from_settings(embedded | {"name": "fashion_mnst"})


def test_wrong_keys_are_named(embedded):
    del embedded["pad"]
    with pytest.raises(ValueError, match=r"missing keys \['pad'\], unknown keys \['padding'\]"):
        DataSet.from_settings(embedded | {"padding": 2})


def test_constants_for_other_channels_are_refused(embedded):
    with pytest.raises(ValueError, match="must have 1 values each"):
        DataSet.from_settings(embedded | {"mean": [0.5, 0.5, 0.5]})


def test_settings_that_contradict_the_files_are_refused(embedded, tmp_path):
    with pytest.raises(ValueError, match="labels 0 to 9, but its settings say 1 channels and 5 classes"):
        load(embedded | {"classes": 5}, train=True, root=tmp_path)
    three = {"channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
    with pytest.raises(ValueError, match=r"has 1 channels .* say 3 channels"):
        load(embedded | three, train=True, root=tmp_path)


def test_embedded_set_loads_without_torchvision(embedded, tmp_path):
    code = f"""
import sys
from repro.data import load
load({embedded!r}, train=True, n_per_class=10, root={str(tmp_path)!r})
sys.exit("torchvision" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
