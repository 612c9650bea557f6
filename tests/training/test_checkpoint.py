"""The state of a block comes back as it was saved, or not at all; what cannot be written does not end a training."""

import errno
import os

import pytest
import torch

from repro.training import checkpoint
from repro.training.checkpoint import BlockState, load_state, save_state
from repro.training.recipe import History, scores

TENSORS = {"weight": torch.randn(3, 4).T, "running_mean": torch.tensor(2.0)}  # one is not contiguous


@pytest.fixture
def state():
    history = History(0.1, "stacked", seconds=1.5)
    history.record(3, scores(0.25, 0.5), scores(float("inf"), 0.5))
    return BlockState("abc", "stacked", [1, 2], 3, [0], {0: history, 1: History(0.01, "stacked")})


def test_what_is_saved_comes_back(state, tmp_path):
    save_state(tmp_path / "s", state, TENSORS)
    loaded, tensors = load_state(tmp_path / "s", "abc")
    assert loaded == state
    assert loaded.histories[0].test_loss == [None]  # not finite
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_nothing_is_there(tmp_path):
    assert load_state(tmp_path / "s", "abc") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-5],
        lambda content: b"",
        lambda content: b"x" * 40,
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),  # a valid file with another weight
    ],
    ids=["cut", "empty", "junk", "one bit"],
)
def test_a_damaged_state_is_set_aside(state, tmp_path, caplog, damage):
    save_state(tmp_path / "s", state, TENSORS)
    content = damage((tmp_path / "s").read_bytes())
    (tmp_path / "s").write_bytes(content)
    assert load_state(tmp_path / "s", "abc") is None
    assert "is damaged" in caplog.text
    assert os.listdir(tmp_path) == ["s.damaged-1"]
    assert (tmp_path / "s.damaged-1").read_bytes() == content


def test_the_state_of_another_block_is_left_alone(state, tmp_path, caplog):
    save_state(tmp_path / "s", state, TENSORS)
    assert load_state(tmp_path / "s", "other") is None
    assert "of another configuration" in caplog.text


STATE = BlockState("identity", "sequential", [0], 3, [], {})


@pytest.mark.parametrize(
    "text",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",  # as safetensors 0.8 has it
        'Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })',
    ],
)
def test_a_full_disk_is_one_warning_with_path_and_advice(tmp_path, monkeypatch, caplog, text):
    path = tmp_path / "state.safetensors"
    save_state(path, STATE, {"w": torch.zeros(3)})

    def full(content, unfinished, metadata):
        raise checkpoint.SafetensorError(text)

    monkeypatch.setattr(checkpoint, "save_file", full)
    save_state(path, STATE, {"w": torch.ones(3)})
    (record,) = caplog.records
    assert f"cannot write {path}: {os.strerror(errno.ENOSPC)}; make room" in record.getMessage()
    assert os.listdir(tmp_path) == [path.name]
    _, tensors = load_state(path, "identity")
    assert tensors["w"].tolist() == [0, 0, 0]  # what was kept before


def test_an_error_without_a_number_keeps_its_text(tmp_path, monkeypatch, caplog):
    def fail(content, unfinished, metadata):
        raise checkpoint.SafetensorError("header too large")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    save_state(tmp_path / "state.safetensors", STATE, {})
    assert "header too large" in caplog.text
