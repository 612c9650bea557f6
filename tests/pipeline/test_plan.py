"""What is left of an experiment, on the smoke experiment and this device."""

import pytest

from repro.pipeline import tasks
from repro.pipeline.experiment import Experiment
from repro.pipeline.plan import job_of, plan


def test_plan_counts_what_is_unfinished_and_checks_itself_on_what_is_not(tmp_path):
    stages = Experiment(["experiment=smoke", "device=cpu", f"outputs={tmp_path}"]).stages()
    ahead, deviation = plan(stages["sweep"], stages["retrain"], job_startup=0.0, seconds=0.05)
    assert (ahead.jobs, ahead.trainings) == (7, 7)  # six of the sweep, one retraining
    assert 0 < ahead.longest_job_hours < ahead.hours
    assert ahead.disk_bytes > 4 * 53064 * 4  # checkpoints of the retraining alone
    assert deviation == {}
    first = stages["sweep"][0]
    tasks.run(first)
    later, deviation = plan(stages["sweep"], stages["retrain"], job_startup=10.0, seconds=0.05)
    assert (later.jobs, later.trainings) == (6, 6)
    assert later.hours > 6 * 10 / 3600
    assert list(deviation) == ["mlp, 1 channels, 10 classes"]


@pytest.mark.parametrize(("data", "test"), [("fashion_mnist_embedded", 1000), ("mnist", 10_000)])
def test_the_jobs_of_a_cell_are_those_of_its_data(data, test):
    (config,) = Experiment(["experiment=smoke", f"data={data}", "n_per_class=6"]).cells().values()
    job = job_of(config, rates=3)
    assert (job.examples, job.test_examples, job.rates) == (60, test, 3)
