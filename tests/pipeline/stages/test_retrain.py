"""The selected network is trained again as it was, and kept with its checkpoints."""

from dataclasses import replace

import pytest
from cells import small, store_outcomes

from repro.pipeline import tasks
from repro.pipeline.selection import MissingRunsError
from repro.pipeline.stages.retrain import Retrain
from repro.pipeline.stages.sweep import Sweep
from repro.storage.runs import read_record


@pytest.fixture
def retrain(tmp_path, machine):
    common = {"root": tmp_path, "trainings": small(), "indices": (0, 1, 2), "machine": machine}
    return Retrain(checkpoints=3, tolerance=0.0, missing_allowed=0, **common)


def sweep(retrain):
    tasks.run(Sweep(root=retrain.root, trainings=retrain.trainings, indices=retrain.indices, machine=retrain.machine))
    return retrain


@pytest.fixture
def swept(retrain):
    return sweep(retrain)


def test_it_comes_to_what_the_sweep_came_to(swept):
    assert not swept.finished()
    tasks.run(swept)
    assert swept.finished()
    record = read_record(swept.folder)
    assert record["epochs"] == [0, 1, 2]
    assert sorted(record["files"]) == [f"epoch000{epoch}.safetensors" for epoch in (0, 1, 2)]
    assert record["retrained_test_error"] == record["sweep_test_error"] == swept.selected_run()["test_error"]
    assert record["within_tolerance"]
    network = swept.network("cpu")
    wrong = (network.model(network.test.inputs).argmax(1) != network.test.labels).double().mean()
    assert float(wrong) == pytest.approx(record["retrained_test_error"])


def test_it_is_done_again_when_a_file_is_lost_or_more_checkpoints_are_wanted(retrain):
    swept = sweep(replace(retrain, trainings=small(epochs=8)))
    tasks.run(swept)
    (swept.folder / "epoch0001.safetensors").unlink()
    assert not swept.finished()
    tasks.run(swept)
    assert swept.finished()
    digest = swept.digest()
    more = replace(swept, checkpoints=9)
    assert not more.finished()
    tasks.run(more)
    assert more.digest() != digest


def test_another_selection_is_another_network(swept):
    tasks.run(swept)
    best = swept.selected_run()["lr"]
    worst = {0.25: 0, 0.05: 1, 0.01: 2}
    store_outcomes(swept.root, swept.trainings, {index: 0.0 for rate, index in worst.items() if rate != best})
    assert not swept.finished()


def test_a_difference_is_told(retrain, caplog):
    store_outcomes(retrain.root, retrain.trainings, {0: 0.5, 1: 0.001, 2: 0.5})
    tasks.run(retrain)
    assert not read_record(retrain.folder)["within_tolerance"]
    assert "test error 0.0010 in the sweep" in caplog.text


def test_without_a_finished_sweep_there_is_nothing_to_train(retrain):
    assert not retrain.finished()
    store_outcomes(retrain.root, retrain.trainings, {0: 0.5})
    with pytest.raises(MissingRunsError, match=r"lacks 2 of 3 learning rates \(1-2\)"):
        tasks.run(retrain)
    assert replace(retrain, indices=(0,)).selected_run()["test_error"] == 0.5


def test_a_cell_of_which_every_training_diverged(retrain):
    store_outcomes(retrain.root, retrain.trainings, dict.fromkeys((0, 1, 2)))
    with pytest.raises(ValueError, match=r"every training of fashion_mnist_embedded/mlp/n4 diverged; there is nothing"):
        tasks.run(retrain)


def test_a_run_of_other_settings_is_not_trained_again_in_the_name_of_the_stored_one(swept):
    with pytest.raises(ValueError, match=r"training\.momentum = 0\.9, asked for 0\.5"):
        tasks.run(replace(swept, trainings=small(momentum=0.5)))


def test_killed_in_the_midst_it_is_not_finished(swept):
    tasks.run(swept)
    record = read_record(swept.folder)
    (swept.folder / "run.json").unlink()
    assert not swept.finished()
    with pytest.raises(FileNotFoundError, match="run `make retrain` first"):
        swept.digest()
    tasks.run(swept)
    assert swept.digest() == record["digest"]
