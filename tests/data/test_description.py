"""What is known of a data set before it is read: facts against the paper, and a reader of a user's own."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from repro.data import DataSet

CONF = Path(__file__).parents[2] / "conf" / "data"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def described(name, **changes):
    return DataSet(**yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changes)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_called_as_its_data_set_and_names_a_reader(name):
    assert described(name).name == name
    assert callable(described(name).find_reader())
    assert described(name).subset_seed == 0  # the paper's


def test_sizes_are_the_papers():
    assert described("mnist").sizes[:9] == [10, 13, 19, 26, 37, 51, 71, 98, 136]
    assert [len(described(name).sizes) for name in ("mnist", "cifar10", "cifar100")] == [20, 20, 20]
    assert described("cifar10").sizes[-1] == 5000
    assert described("cifar100").sizes[-2:] == [406, 500]
    assert described("fashion_mnist_embedded").sizes == described("mnist").sizes[:9]


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
    assert described(name).mean == mean
    assert described(name).std == std
    assert described(name).paper_epochs == (350 if "cifar" in name else 200)


def test_constants_for_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"mnist: mean .* must have 1 values each"):
        described("mnist", mean=[0.5, 0.5, 0.5])


def test_more_examples_than_there_are():
    described("mnist").check_subset(5421)
    with pytest.raises(ValueError, match=r"n_per_class=5422, but MNIST has only 5421 training examples"):
        described("mnist").check_subset(5422)


@pytest.mark.parametrize("reader", ["no_such_module:read", "repro.data.sources:read_mnits", "repro.data.sources:", ""])
def test_a_reader_that_is_not_there(reader):
    with pytest.raises(ValueError, match=r"data set 'mnist': its reader .* cannot be imported: .*PYTHONPATH") as caught:
        described("mnist", reader=reader).find_reader()
    assert "\n" not in str(caught.value)


def test_a_reader_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "users_data.py").write_text("def read(root, *, train, download):\n    return 'read'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert described("mnist", reader="users_data:read").find_reader()(None, train=True, download=False) == "read"


def test_a_description_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        described("mnist").classes = 3
