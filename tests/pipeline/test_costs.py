"""The cost model against sums done by hand, and the calibration against a training it did not see."""

from __future__ import annotations

import pytest
import torch
from repro.pipeline.costs import TOLERANCE, Job, Plan, Throughput, calibrate, deviations, estimate
from torch import nn

from repro.pipeline.plan import beyond_limit
from repro.training import Recipe

RECIPE = Recipe(
    epochs=10, batch_size=8, momentum=0.9, weight_decay=5e-4, milestones=[1 / 3, 2 / 3], factor=0.1, evaluate="last",
    precision="fp32", seed=0,
)  # fmt: skip
TABLE = {"mlp": Throughput(1.0, 0.1, 0.01, 1000), "vgg11": Throughput(2.0, 0.2, 0.02, 5000)}


def test_a_training_is_the_sum_of_its_steps_and_evaluations() -> None:
    # 10 epochs of 3 steps and 20 examples, then 20 + 50 examples evaluated
    assert TABLE["mlp"].training_seconds(RECIPE, 20, 50) == pytest.approx(10 * (3 * 1.0 + 20 * 0.1) + 70 * 0.01)


def test_estimate_adds_up() -> None:
    jobs = [Job("mlp", RECIPE, 20, 50, rates=2), Job("vgg11", RECIPE, 20, 50, rates=1)]
    plan = estimate(jobs, TABLE, startup_seconds=7.0, checkpoints={"mlp": 3, "vgg11": 1})
    assert (plan.jobs, plan.trainings) == (2, 3)
    assert plan.hours == pytest.approx((14 + 2 * 50.7 + 101.4) / 3600)
    assert plan.longest_job_hours == pytest.approx((7 + 2 * 50.7) / 3600)
    assert plan.longest_training_hours == pytest.approx(101.4 / 3600)
    assert plan.disk_bytes == 3 * 4096 + 3 * 1000 + 5000


def test_an_empty_sweep_costs_nothing() -> None:
    assert estimate([], TABLE, startup_seconds=7.0, checkpoints={}) == (0, 0, 0.0, 0.0, 0.0, 0)


def test_jobs_beyond_their_time_limit_get_advice() -> None:
    def advice(job_hours: float, training_hours: float) -> str | None:
        launch = {"resources": {"time": 60}, "stages": {"sweep": {"time": 240}}, "petaflop_per_task": 150}
        return beyond_limit(Plan(1, 1, 9.0, job_hours, training_hours, 0), launch)

    assert advice(4.0, 4.0) is None
    assert advice(6.0, 1.0) == "launch.stages.sweep.time is 4 h: raise it, or try launch.petaflop_per_task=100"
    assert advice(10.0, 5.0) == "one training alone takes 5.00 h, launch.stages.sweep.time is 4 h: raise it"


def test_deviations_are_relative_and_per_network() -> None:
    job = Job("mlp", RECIPE, 20, 50, rates=1)  # 50.7 seconds predicted
    table = deviations([(job, 50.7), (job, 50.7), (job._replace(network="vgg11"), 202.8)], TABLE)
    assert table == {"mlp": pytest.approx(0.0), "vgg11": pytest.approx(-0.5)}
    assert abs(table["vgg11"]) > TOLERANCE


@pytest.mark.parametrize("engine", ["sequential", "stacked"])
def test_calibration_measures_this_device(engine: str) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 3))

    table = calibrate(build, RECIPE, torch.zeros(1, 1, 8, 8), engine=engine, stack=4, seconds=0.05)
    assert table.step_seconds + RECIPE.batch_size * table.example_seconds > 0
    assert table.evaluation_seconds > 0
    assert table.weight_bytes == 4 * (64 * 512 + 5 * 512 + 512 * 3 + 3) + 8  # 8: batch norm's counter
