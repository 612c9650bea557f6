"""A block of trainings stores each of them once, and resumes."""

import json
from dataclasses import replace

import pytest
from cells import small

from repro.pipeline import tasks
from repro.pipeline.stages.sweep import Sweep
from repro.storage.identity import digest
from repro.storage.runs import read_run, run_path


@pytest.fixture
def block(tmp_path, machine):
    return Sweep(root=tmp_path, trainings=small(), indices=(0, 2), machine=machine)


def stored(root):
    return sorted(path.name for path in root.rglob("lr*.json"))


def test_its_runs_are_stored_with_what_they_are_of(block, tmp_path):
    assert not block.finished()
    tasks.run(block)
    assert stored(tmp_path) == ["lr000.json", "lr002.json"]
    run = read_run(run_path(tmp_path, block.trainings.cell, 2))
    assert run["digest"] == digest(block.trainings.identity(2))
    assert run["config"]["lr"] == 0.01
    assert run["history"]["epoch"] == [2]
    assert run["metrics"]["test_error"] == run["history"]["test_error"][-1]
    made = run["provenance"]
    assert (made["engine"], made["data_title"]) == ("sequential", "Fashion-MNIST (subset)")
    assert block.finished()


def test_only_what_is_missing_is_trained(block, tmp_path):
    tasks.run(block)
    kept, lost = (run_path(tmp_path, block.trainings.cell, index) for index in (0, 2))
    before = read_run(lost)["metrics"]
    lost.unlink()
    stamp = kept.stat().st_mtime_ns
    tasks.run(block)
    assert read_run(lost)["metrics"] == before
    assert kept.stat().st_mtime_ns == stamp
    tasks.run(replace(block, force=True))
    assert kept.stat().st_mtime_ns != stamp


def test_other_settings_are_refused(block, tmp_path):
    tasks.run(block)
    with pytest.raises(ValueError, match=r"training\.momentum = 0\.9, asked for 0\.5.*force=true"):
        replace(block, trainings=small(momentum=0.5)).finished()


def test_a_state_that_outlived_its_block_is_removed(block, tmp_path):
    """As when the process is killed between storing the last run and deleting the state."""
    tasks.run(block)
    state = block._state_path()
    state.parent.mkdir(exist_ok=True)
    state.write_bytes(b"left over")
    assert not block.finished()
    tasks.run(block)
    assert block.finished()
    assert not state.exists()


def test_the_state_is_named_by_the_whole_block(block, tmp_path):
    assert block._state_path() == replace(block, force=True)._state_path()
    assert block._state_path() != replace(block, indices=(0, 1))._state_path()
    assert block._state_path() != replace(block, trainings=small(momentum=0.5))._state_path()


def test_a_seed_has_files_of_its_own(block, tmp_path):
    other = replace(block, trainings=small(seed=1), indices=(0,))
    for task in (replace(block, indices=(0,)), other):
        tasks.run(task)
    one, two = (json.loads(path.read_text()) for path in sorted(tmp_path.rglob("lr000.json")))
    assert one["metrics"] != two["metrics"]
    assert other.name == "fashion_mnist_embedded/mlp/n4/seed1/lr0"
