"""An experiment of toys whose tasks are finished when a file of their name is there."""

from dataclasses import dataclass, field, replace

import pytest
from launching import as_documented

from repro.pipeline.config import STAGES
from repro.pipeline.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Toy(Task):
    """Does nothing, and notes that it was asked."""

    label: str
    asked: list[str] = field(default_factory=list, compare=False)

    @property
    def name(self) -> str:
        return self.label

    def finished(self) -> bool:
        flat = self.label.replace("/", "_")
        self.asked.append(flat)
        return (self.root / flat).exists()

    def run(self, device: str) -> None:
        pass


TOYS = {stage: type(stage, (Toy,), {"stage": stage}) for stage in STAGES}


@pytest.fixture
def launch():
    return as_documented()


@pytest.fixture
def asked():
    """The names of the tasks that were asked whether they are finished."""
    return []


@pytest.fixture
def stages(tmp_path, asked):
    """Five trainings and what follows."""

    def make(stage, *names):
        return [TOYS[stage](root=tmp_path, label=name, asked=asked) for name in names]

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
    """Tasks that are computed though they are finished."""
    return lambda *tasks: [replace(task, force=True) for task in tasks]
