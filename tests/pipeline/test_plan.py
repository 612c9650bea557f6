"""What is left of an experiment adds up, on tasks of known cost."""

import os
import time
from dataclasses import replace

import pytest
import torch
from cells import small, store_outcomes

from repro.pipeline import calibration
from repro.pipeline import plan as planning
from repro.pipeline.config import Launch, Resources, StageResources
from repro.pipeline.cost import PRODUCT, Throughput
from repro.pipeline.launch.local import Workers
from repro.pipeline.plan import Plan, beyond_limit, plan, small_last_batches
from repro.pipeline.stages.measure import Measure
from repro.pipeline.stages.retrain import Retrain
from repro.pipeline.stages.sweep import Sweep

SPEED = Throughput(step_seconds=1.0, example_seconds=0.1, evaluation_seconds=0.01)
NETWORK = "MLP (width 0.02), 1 channels, 10 classes"
ALONE = 2 * (2 * 1.0 + 40 * 0.1) + 1040 * 0.01  # seconds of one training of `small`


@pytest.fixture
def stages(tmp_path, machine, monkeypatch):
    """One cell with three rates in two tasks, its retraining and a measurement."""
    monkeypatch.setattr(calibration, "calibrate", lambda *_, **__: SPEED)
    of = small()
    common = {"root": tmp_path, "trainings": of, "machine": machine}
    retrain = Retrain(indices=(0, 1, 2), checkpoints=3, tolerance=0.01, missing_allowed=0, **common)
    of_measurement = {
        "measurement": "hessian_spectrum",
        "settings": {"steps": 12},
        "version": 1,
        "usual_steps": 10,
        "of": retrain,
    }
    measure = Measure(root=tmp_path, experiment="x", asked_device="cpu", **of_measurement)
    sweep = [Sweep(indices=indices, **common) for indices in ((0, 1), (2,))]
    return {"sweep": sweep, "select": [], "retrain": [retrain], "measure": [measure], "figures": [], "report": []}


def test_all_is_to_do(stages):
    ahead = plan(stages, job_startup=0.0)
    product = PRODUCT * 40 * 0.1
    assert (ahead.jobs, ahead.trainings, ahead.measurements) == (4, 4, 1)  # the retraining is one
    assert ahead.measuring_hours == pytest.approx(12 * product / 3600)
    assert ahead.hours == pytest.approx((4 * ALONE + 12 * product) / 3600)
    assert ahead.longest_job_hours == pytest.approx(2 * ALONE / 3600)
    assert ahead.longest_training_hours == pytest.approx(ALONE / 3600)
    assert ahead.disk_bytes == 4 * 4096 + 3 * small().network_size.weight_bytes  # of two epochs three networks are kept
    assert ahead.deviations == {}
    assert ahead.timed == (NETWORK,)


def test_jobs_of_a_cluster_start_up(stages):
    later, now = (plan(stages, job_startup=seconds) for seconds in (10.0, 0.0))
    assert later.hours - now.hours == pytest.approx(4 * 10 / 3600)


def test_what_is_stored_is_no_longer_to_do_and_predicts_the_rest(stages, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "calibrate", lambda *_, **__: pytest.fail("timed"))
    store_outcomes(tmp_path, small(), {0: 0.5, 1: None})  # three seconds each; a diverged one says nothing
    ahead = plan(stages, job_startup=0.0)
    assert (ahead.jobs, ahead.trainings) == (3, 2)
    assert ahead.longest_training_hours == pytest.approx(3 / 3600)
    assert ahead.timed == ()
    assert ahead.deviations == {NETWORK: pytest.approx(0, abs=1e-9)}


def test_other_data_are_predicted_by_the_operations_of_a_network_that_was_trained():
    of = small()
    wider = replace(of, data=replace(of.data, name="colour", channels=3, mean=[0.5] * 3, std=[0.5] * 3))
    table = planning.Throughputs({of.cell: (of, 3.0)}, 1.0)
    per_image = table.of(wider, "cpu").example_seconds / table.of(of, "cpu").example_seconds
    assert per_image == pytest.approx(wider.network_size.flop / of.network_size.flop)
    assert per_image > 1
    assert table.timed == []


def test_an_empty_list_costs_nothing():
    nothing = {"sweep": [], "retrain": [], "measure": []}
    assert plan(nothing, job_startup=7.0) == (0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0, (), {})


def test_each_network_is_timed_once(stages, monkeypatch):
    timed = []
    monkeypatch.setattr(calibration, "calibrate", lambda of, *_, **__: timed.append(of) or SPEED)
    plan(stages, job_startup=0.0)
    assert len(timed) == 1


def test_workers_time_a_network_at_the_same_time(stages, monkeypatch):
    """As they share cores and memory; the mean of what they find counts."""
    monkeypatch.undo()
    with Workers(2, "cpu") as workers:
        ahead = plan(stages, job_startup=0.0, workers=workers, seconds=0.01)
        seen = workers.on_all(at_once, 0.2)
    assert ahead.timed == (NETWORK,)
    assert 0 < ahead.longest_training_hours < ahead.hours
    assert len({process for process, *_ in seen}) == 2
    assert max(start for _, start, _, _ in seen) < min(end for _, _, end, _ in seen)
    assert {threads for *_, threads in seen} == {1}


def at_once(seconds):
    start = time.time()
    time.sleep(seconds)
    return os.getpid(), start, time.time(), torch.get_num_threads()


def test_each_worker_counts_as_much():
    class Two:
        def on_all(self, function, *arguments):
            return [SPEED, SPEED.scaled(3.0)]

    table = planning.Throughputs({}, 1.0, Two())
    assert table.of(small(), "cpu") == pytest.approx(SPEED.scaled(2.0))


def test_jobs_beyond_their_time_limit_get_advice():
    launch = Launch(
        kind="slurm", rates_per_task=100, petaflop_per_task=150.0,
        resources=Resources(time=60), stages={"sweep": StageResources(time=240)},
    )  # fmt: skip
    nothing = Plan(1, 1, 0, 9.0, 0.0, 0.0, 0.0, 0, (), {})

    def advice(job_hours, training_hours, launch=launch):
        ahead = nothing._replace(longest_job_hours=job_hours, longest_training_hours=training_hours)
        return beyond_limit(ahead, launch)

    assert advice(4.0, 4.0) is None
    assert advice(6.0, 1.0) == "launch.stages.sweep.time is 4 h: raise it, or try launch.petaflop_per_task=100"
    alone = "one training alone takes 5.00 h, launch.stages.sweep.time is 4 h: raise it"
    assert advice(10.0, 5.0) == alone
    assert advice(99.0, 99.0, replace(launch, stages={}, resources=Resources())) is None
    assert advice(1.5, 1.5, replace(launch, stages={})) == alone.replace("5.00", "1.50").replace("4 h", "1 h")


@pytest.mark.parametrize(
    ("n_per_class", "last_batch", "named"),
    [(13, "keep", True), (13, "drop", False), (13, "join", False), (51, "keep", False), (1, "keep", False)],
)  # 130 = 4 x 32 + 2, 510 = 15 x 32 + 30, and 10 are one batch
def test_cells_whose_last_batch_is_small_are_named(n_per_class, last_batch, named):
    of = small(n_per_class, last_batch=last_batch)
    expected = [f"{of.cell} ends each epoch on a batch of 2"] if named else []
    assert small_last_batches({of.cell: of}) == expected
