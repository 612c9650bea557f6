"""A state that cannot be written costs what an interruption would lose, not the training."""

import errno
import os

import pytest
import torch

from repro.training import checkpoint
from repro.training.checkpoint import BlockState, load_state, save_state

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
