"""A task of the sweep that is killed again and again."""

import pytest

import repro.training
from repro.pipeline import tasks
from repro.pipeline.experiment import Experiment
from repro.storage.runs import read_run


class Killed(Exception):
    pass


def test_a_block_finds_its_state_whatever_is_stored_of_it(tmp_path, monkeypatch):
    train_block, told = repro.training.train_block, []

    def train(kill_at, **overrides):
        """Train the block until `kill_at` of its 12 epochs are done."""

        def kill(done, total):
            told.append(done)
            if done == kill_at:
                raise Killed

        def killed(*args, **kwargs):
            return train_block(*args, **kwargs | {"on_epoch": kill})

        monkeypatch.setattr(repro.training, "train_block", killed)
        task.config.update(overrides)
        tasks.run(task)

    grid = ["experiment=smoke", f"outputs={tmp_path}", "n_per_class=4", "training.epochs=4", "launch.rates_per_task=3"]
    (task,) = Experiment([*grid, "device=cpu", "engine=sequential"]).stages()["sweep"]
    with pytest.raises(Killed):
        train(5)  # one training is stored, no state is saved
    with pytest.raises(Killed):
        train(10, checkpoint_seconds=0)  # a second is stored; the state is that of epoch 9
    train(None)
    assert told == [1, 2, 3, 4, 5, *range(5, 11), *range(10, 13)]
    stored = [read_run(path) for path in sorted(tmp_path.rglob("lr*.json"))]
    assert [run["config"]["lr_index"] for run in stored] == [0, 1, 2]
    assert not list(tmp_path.rglob("*.safetensors"))
    assert tasks.finished(task)


def test_a_state_that_outlived_its_block_is_removed_without_training(tmp_path):
    grid = ["experiment=smoke", f"outputs={tmp_path}", "n_per_class=4", "launch.rates_per_task=3", "device=cpu"]
    (task,) = Experiment(grid).stages()["sweep"]
    tasks.run(task)
    state = tasks._state_path(task.config)
    state.parent.mkdir(exist_ok=True)
    state.write_bytes(b"left by a process that was killed before it could delete it")
    assert not tasks.finished(task)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("lr*.json")}
    tasks.run(task)
    assert not state.exists()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("lr*.json")} == stamps
    assert tasks.finished(task)
