"""The classes of the configuration refuse what cannot be, and say what holds for a stage."""

from pathlib import Path

import pytest

from repro.pipeline.config import Launch, Machine, Resources, StageResources

MACHINE = {"device": "cpu", "data_root": "x", "download": False, "checkpoint_seconds": 1.0, "curvature_batch": 5}


def test_what_a_stage_asks_for_goes_before_what_all_ask_for():
    launch = Launch(
        kind="slurm", rates_per_task=1, resources=Resources(mem="16GB", time=120, setup=["module load cuda"]),
        stages={"sweep": StageResources(time=240, gpus_per_node=1, tasks_per_job=2), "select": StageResources()},
    )  # fmt: skip
    common = {"mem": "16GB", "setup": ["module load cuda"]}
    assert launch.of_stage("sweep") == {**common, "time": 240, "gpus_per_node": 1}
    assert launch.of_stage("select") == launch.of_stage("report") == {**common, "time": 120}
    assert [launch.tasks_per_job(stage) for stage in ("sweep", "select", "report")] == [2, None, None]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kind": "pbs"}, "launch.kind is 'pbs'"),
        ({"rates_per_task": 0}, "rates_per_task must be at least 1"),
        ({"petaflop_per_task": 0.0}, "petaflop_per_task more than 0"),
        ({"workers": 0}, "launch.workers is 0; it must be auto or a positive number"),
        ({"workers": "all"}, "launch.workers is 'all'"),
        ({"retries": -1}, "cannot be negative"),
        ({"stages": {"swep": StageResources()}}, "launch.stages.swep: there is no such stage; there are sweep,"),
    ],
)
def test_impossible_launches_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        Launch(**{"kind": "local", "rates_per_task": 1} | values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"device": "gpu"}, "device=gpu is none of auto, cpu, cuda and cuda:<number>"),
        ({"device": "cuda:x"}, "device=cuda:x"),
        ({"curvature_batch": 0}, "curvature_batch=0"),
    ],
)
def test_impossible_machines_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        Machine(**MACHINE | values)


def test_a_configuration_knows_its_folder(composed):
    config = composed("experiment=smoke", "outputs=/x/y")
    assert config.root == Path("/x/y/smoke")
    assert composed("experiment=smoke", "name=mine").root == Path("outputs/mine")
    assert config.machine.device == config.device == "auto"
