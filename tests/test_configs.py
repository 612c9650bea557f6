"""Every yaml composes, and its keys are those of what it configures."""

import importlib
import inspect
from dataclasses import fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from repro.figures import FIGURES, find_figure
from repro.models import MODELS
from repro.pipeline.experiment import Experiment, resolve

CONF = Path(__file__).resolve().parent.parent / "conf"


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(*overrides: str, name: str = "train"):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=list(overrides))


@pytest.mark.parametrize("data", names("data"))
@pytest.mark.parametrize("model", names("model"))
def test_every_data_set_and_network_composes(data, model):
    config = resolve(composed(f"data={data}", f"model={model}", "training.epochs=3"))
    assert (config["data"]["name"], config["model"]["name"]) == (data, model)
    assert config["lr_indices"] == list(range(config["learning_rates"]["count"]))


@pytest.mark.parametrize("model", names("model"))
def test_model_keys_are_the_builders(model):
    keys = set(composed(f"model={model}", "training.epochs=3").model) - {"name"}
    assert keys <= set(inspect.signature(MODELS[model]).parameters), f"conf/model/{model}.yaml"


@pytest.mark.parametrize("training", names("training"))
def test_training_keys_are_the_recipes(training):
    from repro.training import Recipe

    settings = resolve(composed(f"training={training}", "training.epochs=3"))["training"]
    assert set(settings) == {field.name for field in fields(Recipe)}
    Recipe(**settings)


@pytest.mark.parametrize("measurement", names("measurement"))
def test_measurement_keys_are_the_functions(measurement):
    settings = OmegaConf.to_container(composed(f"measurement={measurement}", name="measure").measurement)
    assert settings.pop("name") == measurement
    per_cell = settings.pop("per_cell")
    parameters = dict(
        inspect.signature(importlib.import_module(f"repro.measurements.{measurement}").measure).parameters
    )
    assert (parameters.pop("run", None) is not None) == per_cell
    assert set(settings) == set(parameters)
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters.values())


def test_every_measurement_has_its_yaml_and_its_figure():
    modules = {p.stem for p in (CONF.parent / "repro" / "measurements").glob("*.py")} - {"__init__"}
    drawn = {name for number in FIGURES for name in find_figure(number).measurements}
    assert modules == set(names("measurement")) == drawn


@pytest.mark.parametrize("experiment", names("experiment"))
def test_every_experiment_expands(experiment):
    stages = Experiment([f"experiment={experiment}"]).stages()
    assert stages["sweep"]
    assert stages["figures"]
    assert all(len({task.name for task in tasks}) == len(tasks) for tasks in stages.values())


def test_the_reproductions_draw_every_figure():
    for experiment in ("embedded", "paper"):
        drawn = {task.config["figure"] for task in Experiment([f"experiment={experiment}"]).stages()["figures"]}
        assert drawn == set(FIGURES), experiment
