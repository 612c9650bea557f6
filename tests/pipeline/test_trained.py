"""Networks of the pipeline are built, kept and loaded as they were."""

from dataclasses import replace

import pytest
import torch
from cells import small
from safetensors.torch import save_file
from torch import nn

from repro.models import Architecture
from repro.pipeline.trained import StoredCheckpoints, build, load_splits, load_weights, network_of, save_weights
from repro.storage.identity import file_digest


def refused(sentence, error=ValueError):
    """pytest.raises for a message of one line."""
    return pytest.raises(error, match=rf"\A[^\n]*{sentence}[^\n]*\Z")


def tiny(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), *layers, nn.Linear(4, 3)).eval()


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_network_is_drawn_from_the_training_seed(trainings):
    assert equal(build(trainings), build(trainings))
    assert not equal(build(trainings), build(small(seed=1)))


def test_the_data_of_a_cell(trainings, machine):
    train, test = load_splits(trainings, machine, "cpu")
    assert train.labels.bincount().tolist() == [4] * 10
    assert len(test.labels) == 1000


def test_weights_come_back_in_eval_mode(tmp_path):
    model = tiny(nn.BatchNorm1d(4))
    model[1].running_mean += 1
    save_weights(tmp_path / "w", model.train())
    loaded = load_weights(tmp_path / "w", tiny(nn.BatchNorm1d(4)).train())
    assert equal(loaded, model)
    assert not loaded.training


def test_weights_of_another_architecture_damaged_or_diverged(tmp_path):
    path = tmp_path / "w.safetensors"
    with refused("there is no weights file", FileNotFoundError):
        load_weights(path, tiny())
    save_weights(path, tiny(nn.BatchNorm1d(4)))
    with refused("holds the weights of another architecture.*running_mean"):
        load_weights(path, tiny())
    whole = path.read_bytes()
    for damaged in (whole[:-10], whole[:20], b"", b"\x80\x04pickled", bytes([255]) * 8 + whole[8:]):
        path.write_bytes(damaged)
        with refused("not a readable safetensors file.*save_file"):
            load_weights(path, tiny())
    save_file({name: tensor * float("nan") for name, tensor in tiny().state_dict().items()}, path)
    with refused("weights that are not finite, first in"):
        load_weights(path, tiny())
    model = nn.Sequential(nn.Linear(2, 2))
    model.register_buffer("mask", torch.full((2, 2), -torch.inf))
    save_file(model.state_dict(), path)
    assert load_weights(path, model) is model


def test_pickled_weights_are_not_opened(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "w.pt")
    with refused("not a readable safetensors file.*safetensors.torch.save_file"):
        load_weights(tmp_path / "w.pt", tiny())


def test_a_full_disk_is_named(tmp_path):
    (tmp_path / "outputs").write_text("a file where a folder should be")
    with refused("cannot write .*w.safetensors", OSError):
        save_weights(tmp_path / "outputs" / "w.safetensors", tiny())


@pytest.fixture
def checkpoints(trainings, tmp_path):
    for seed, epoch in enumerate((0, 2)):
        save_weights(tmp_path / f"epoch{epoch:04d}.safetensors", build(small(seed=seed)))
    record = {"epochs": [0, 2], "files": {path.name: file_digest(path) for path in tmp_path.iterdir()}}
    return StoredCheckpoints(tmp_path, record, trainings, "cpu")


def test_checkpoints_are_loaded_when_asked_for(checkpoints, machine, trainings):
    network = network_of(checkpoints[2], trainings, machine, "cpu", checkpoints)
    assert network.epochs == [0, 2]
    assert equal(network.at_epoch(0), build(small(seed=0)))
    assert equal(network.model, build(small(seed=1)))
    assert network.cell == trainings.cell
    assert (network.weight_decay, network.batch_size) == (5e-4, 100)
    with refused(r"no checkpoint of epoch 3; there are \[0, 2\]"):
        network.at_epoch(3)


def test_a_checkpoint_that_is_not_the_one_written(checkpoints, tmp_path):
    path = tmp_path / "epoch0000.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1  # a valid file with another weight
    path.write_bytes(content)
    with refused(r"epoch0000\.safetensors is missing or was damaged; the next run trains", FileNotFoundError):
        checkpoints[0]
    assert (tmp_path / "epoch0000.safetensors.damaged-1").read_bytes() == content
    with refused(r"epoch0000\.safetensors is missing or was damaged", FileNotFoundError):
        checkpoints[0]


def test_a_network_for_other_images(trainings, machine, tmp_path, monkeypatch):
    (tmp_path / "thick.py").write_text(
        "from torch import nn\n"
        "def build(channels, classes): return nn.Sequential(nn.Conv2d(3, classes, 32), nn.Flatten())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    thick = replace(trainings, model=Architecture.from_keys({"build": "thick:build"}))
    with refused(r"does not take inputs of shape \[40, 1, 32, 32\]: .* have 3 channels, but got 1 channels"):
        network_of(build(thick).eval(), thick, machine, "cpu")
