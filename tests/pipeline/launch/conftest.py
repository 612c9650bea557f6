"""An experiment of toys whose tasks are finished when a file of their name is there."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from repro.pipeline import tasks
from repro.pipeline.tasks import Stage, Task

CONF = Path(__file__).resolve().parents[3] / "conf" / "launch" / "slurm.yaml"


@pytest.fixture
def launch():
    return OmegaConf.to_container(OmegaConf.load(CONF), resolve=True)


@pytest.fixture
def asked():
    """The names of the tasks that were asked whether they are finished."""
    return []


@pytest.fixture
def stages(tmp_path, monkeypatch, asked):
    """Five trainings and what follows."""

    def is_finished(config):
        asked.append(config["name"])
        return Path(config["root"], config["name"]).exists()

    monkeypatch.setattr(tasks, "STAGES", dict.fromkeys(tasks.STAGES, Stage(lambda config: None, is_finished)))

    def make(stage, *names):
        return [Task(stage, n, {"root": str(tmp_path), "name": n.replace("/", "_"), "force": False}) for n in names]

    return {
        "sweep": make("sweep", *(f"data/net/n4/lr{i}" for i in range(5))),
        "select": make("select", "toy"),
        "retrain": make("retrain", "data/net/n4"),
        "measure": make("measure", "data/net/n4/spectrum"),
        "figures": make("figures", "3", "4"),
        "report": make("report", "all"),
    }


@pytest.fixture
def finish(tmp_path):
    """Make tasks finished."""

    def finish(*tasks):
        for task in tasks:
            (tmp_path / task.name.replace("/", "_")).touch()

    return finish


@pytest.fixture
def force():
    """Have tasks computed though they are finished."""

    def force(*tasks):
        for task in tasks:
            task.config["force"] = True

    return force
