"""Every file of conf/ composes, and the experiments expand to tasks."""

import tomllib

import pytest

from repro.figures import FIGURES, find_figure
from repro.measurements import MEASUREMENTS
from repro.models import Architecture
from repro.pipeline.composition import Composer
from repro.pipeline.config import CONF
from repro.pipeline.experiment import Experiment


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(*overrides: str):
    return Composer(overrides, (), CONF).config


@pytest.mark.parametrize("data", names("data"))
@pytest.mark.parametrize("model", names("model"))
def test_every_data_set_and_network_composes(data, model):
    own = ["model.build=repro.models.vgg:VGG11"] if model == "own" else []
    config = composed(f"data={data}", f"model={model}", *own)
    assert config.data.name == data
    Architecture.from_keys(config.model)  # its settings are the builder's


def test_a_wheel_holds_every_file():
    """As `python -m repro measure` needs them: by the link repro/conf and the patterns that setuptools is given."""
    root = CONF.parent
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    kept, left_out = (
        {
            path.relative_to(root / "repro")
            for pattern in patterns[key]["repro"]
            for path in (root / "repro").glob(pattern)
        }
        for key in ("package-data", "exclude-package-data")
    )
    own = {path.relative_to(root) for path in CONF.rglob("*.*") if path.parent.name != "site"}
    assert kept - left_out == own


@pytest.mark.parametrize("group", ["training", "launch"])
def test_every_recipe_and_launcher_composes(group):
    for name in names(group):
        composed(f"{group}={name}")


def test_every_measurement_has_a_figure():
    figures = [find_figure(number) for number in FIGURES]
    drawn = {name for figure in figures for name in (*figure.measurements, figure.fallback) if name}
    assert set(MEASUREMENTS) == drawn


@pytest.mark.parametrize("experiment", names("experiment"))
def test_every_experiment_expands(experiment):
    stages = Experiment([f"experiment={experiment}"]).stages()
    assert stages["sweep"]
    assert stages["figures"]
    assert all(len({task.name for task in tasks}) == len(tasks) for tasks in stages.values())


def test_the_reproductions_draw_every_figure():
    for experiment in ("embedded", "paper"):
        drawn = {task.name for task in Experiment([f"experiment={experiment}"]).stages()["figures"]}
        assert drawn == set(FIGURES), experiment
