"""A measurement is made once of each network, and anew when it, its settings or the network change."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from cells import small

from repro.curvature.risk import RiskOperator
from repro.measurements import class_means, find_measurement, logistic_regression
from repro.models import Architecture
from repro.pipeline import tasks
from repro.pipeline.stages.measure import Measure, OwnWeights
from repro.pipeline.stages.retrain import Retrain
from repro.pipeline.stages.sweep import Sweep
from repro.pipeline.trained import build, save_weights
from repro.storage.files import write_json
from repro.storage.results import load_provenance, load_result
from repro.storage.runs import read_record


def measure(root, name, of, **settings):
    kind = find_measurement(name)
    common = {"root": root, "experiment": "x", "asked_device": "cpu"}
    made = asdict(kind.settings(**settings))
    return Measure(measurement=name, settings=made, version=kind.version, usual_steps=10, of=of, **common)


@pytest.fixture
def retrained(tmp_path, machine):
    common = {"root": tmp_path, "trainings": small(), "indices": (1,), "machine": machine}
    tasks.run(Sweep(**common))
    task = Retrain(checkpoints=2, tolerance=0.0, missing_allowed=0, **common)
    tasks.run(task)
    return task


def test_its_result_says_what_was_measured(retrained, tmp_path):
    task = measure(tmp_path, "class_means", retrained)
    assert not task.finished()
    tasks.run(task)
    assert task.finished()
    result = load_result(task.path, retrained.trainings.cell)
    expected = class_means.measure(retrained.network("cpu"), class_means.Settings())
    assert set(result.arrays) == set(expected)
    assert all(np.array_equal(result.arrays[name], expected[name]) for name in expected)
    made = result.provenance
    settings = {"memory_bytes": 8e9, "stored_means": 2500, "classes": None}
    assert made["measurement"] == {"name": "class_means", **settings}
    assert (made["experiment"], made["epochs"], made["version"]) == ("x", [0, 1, 2], class_means.VERSION)
    assert (made["data_title"], made["model_title"]) == ("Fashion-MNIST (subset)", "MLP (width 0.02)")
    assert made["training"]["weight_decay"] == 5e-4


def test_its_products_are_counted(retrained, tmp_path):
    counted = {}
    for name, settings in {"weights": {}, "gauss_newton_knockouts": {"steps": 12}}.items():
        task = measure(tmp_path, name, retrained, **settings)
        tasks.run(task)
        counted[name] = load_provenance(task.path)["products"]
    assert counted["weights"] == 0
    assert (
        counted["gauss_newton_knockouts"] >= 4 * 12
    )  # G, and G without each of three parts; of the last no product is needed


def test_a_changed_measurement_is_made_anew_and_no_other(retrained, tmp_path, monkeypatch):
    def asked():
        return [measure(tmp_path, name, retrained) for name in ("class_means", "weights")]

    for task in asked():
        tasks.run(task)
    monkeypatch.setattr(class_means, "VERSION", class_means.VERSION + 1)
    assert [task.measurement for task in tasks.unfinished(asked())] == ["class_means"]


def test_other_settings_or_another_network_are_measured_anew(retrained, tmp_path):
    task = measure(tmp_path, "class_means", retrained)
    tasks.run(task)
    assert not measure(tmp_path, "class_means", retrained, stored_means=3).finished()
    assert measure(tmp_path, "class_means", retrained, memory_bytes=1e9).finished()  # a machine's, not the numbers'
    record = read_record(retrained.folder)
    write_json(retrained.folder / "run.json", record | {"digest": "of another"})
    assert not task.finished()
    write_json(retrained.folder / "run.json", record)
    assert task.finished()
    (retrained.folder / "epoch0002.safetensors").unlink()
    assert not task.finished()


def test_one_of_no_network(tmp_path):
    task = measure(tmp_path, "logistic_regression", None, examples=200, snrs=[1.0])
    tasks.run(task)
    assert task.name == "logistic_regression"
    assert task.path == tmp_path / "results" / "logistic_regression.npz"
    assert task.finished()
    expected = logistic_regression.measure(task.typed_settings())
    assert np.array_equal(load_result(task.path, None).arrays["levels"], expected["levels"])
    assert "epochs" not in load_provenance(task.path)


BUILDER = """
from torch import nn
def build(channels, classes, side):
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(channels * (side // 8) ** 2, classes), nn.Tanh())
"""


def test_weights_of_ones_own(tmp_path, machine, monkeypatch):
    weights, code = tmp_path / "mine.safetensors", tmp_path / "mine_of_a_test.py"
    code.write_text(BUILDER)
    monkeypatch.syspath_prepend(tmp_path)
    trainings = replace(small(), model=Architecture("mine", "mine", "mine_of_a_test:build", {}))
    save_weights(weights, build(trainings))
    of = OwnWeights(weights=weights, trainings=trainings, machine=machine)
    task = measure(tmp_path, "class_means", of)
    tasks.run(task)
    assert task.finished()
    assert load_provenance(task.path)["epochs"] == []
    code.write_text(BUILDER.replace("Tanh", "ReLU"))
    assert not task.finished()
    code.write_text(BUILDER)
    assert task.finished()
    weights.write_bytes(b"others")
    assert not task.finished()


class Killed(BaseException):
    """In the place of a kill: nothing catches it."""


def test_one_that_is_killed_goes_on_where_it_was(retrained, tmp_path, monkeypatch, machine):
    eager = replace(retrained, machine=replace(machine, checkpoint_seconds=0))
    task = measure(tmp_path, "hessian_spectrum", eager, steps=12, spectra=["train_hessian", "train_residual"])
    tasks.run(task)
    expected = load_result(task.path, None)
    task.path.unlink()
    product, left = RiskOperator.matmat, [30]  # in the second spectrum

    def dying(self, V):
        left[0] -= 1
        if not left[0]:
            raise Killed
        return product(self, V)

    monkeypatch.setattr(RiskOperator, "matmat", dying)
    with pytest.raises(Killed):
        tasks.run(task)
    assert not task.finished()
    monkeypatch.undo()
    tasks.run(task)
    found = load_result(task.path, None)
    assert {name: array.tobytes() for name, array in found.arrays.items()} == {
        name: array.tobytes() for name, array in expected.arrays.items()
    }
    made, before = found.provenance["products"], expected.provenance["products"]
    assert made == before + 1  # one to prove the checkpoint
    assert [path.name for path in task.path.parent.iterdir()] == [task.path.name]


def test_what_another_measurement_has_left_is_removed(retrained, tmp_path, caplog):
    task = measure(tmp_path, "class_means", retrained)
    left = task.path.with_name("class_means.unfinished") / "0123456789abcdef-0001.part"
    left.parent.mkdir(parents=True)
    left.write_text("of another")
    tasks.run(task)
    assert "starts from the beginning" in caplog.text
    assert task.finished()
    assert not left.parent.exists()


def test_work_grows_with_the_steps_and_is_none_without_a_network(retrained, tmp_path):
    few, many = (measure(tmp_path, "hessian_spectrum", retrained, steps=steps) for steps in (20, 60))
    assert many.cost == pytest.approx(3 * few.cost)
    assert measure(tmp_path, "logistic_regression", None).cost == 0
