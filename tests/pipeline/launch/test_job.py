"""What a SLURM job does, without a cluster."""

import pickle
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from cells import small

from repro.curvature.risk import RiskOperator
from repro.measurements import find_measurement
from repro.pipeline.launch import job
from repro.pipeline.launch.attempts import read_attempt
from repro.pipeline.stages.measure import Measure, OwnWeights
from repro.pipeline.trained import build, save_weights
from repro.storage.results import load_result


class Over(BaseException):
    """The process ends."""


def test_a_measurement_that_meets_its_time_limit_is_queued_again_and_goes_on(tmp_path, machine, monkeypatch):
    """submitit's handler of the signal interrupts a product, pickles what `checkpoint` returns, and ends it all."""
    paths = SimpleNamespace(stdout=tmp_path / "log.out")
    monkeypatch.setattr(job, "JobEnvironment", lambda: SimpleNamespace(job_id="12_3", paths=paths))
    weights, kind = tmp_path / "mine.safetensors", find_measurement("hessian_spectrum")
    save_weights(weights, build(small()))
    own = OwnWeights(weights=weights, trainings=small(), machine=replace(machine, checkpoint_seconds=0))
    settings = asdict(kind.settings(steps=12, spectra=["train_hessian", "train_gauss_newton"]))
    common = {"experiment": "x", "asked_device": "cpu", "measurement": kind.name, "version": kind.version}
    common["usual_steps"] = kind.settings.usual_steps
    tasks = [Measure(root=tmp_path / name, settings=settings, of=own, **common) for name in ("undisturbed", "limited")]
    job.Chunk(tasks[:1], 1)()
    product, seen, pickled = RiskOperator.matmat, [], []

    def interrupted(self, V):
        seen.append(V.shape[1])
        if len(seen) in (20, 34):
            pickled.append(pickle.dumps(chunk.checkpoint()))
            raise Over
        return product(self, V)

    monkeypatch.setattr(RiskOperator, "matmat", interrupted)
    chunk = job.Chunk(tasks[1:], 1)
    for _ in range(2):
        with pytest.raises(Over):
            chunk()
        chunk = pickle.loads(pickled.pop()).function
    chunk()
    expected, found = (load_result(task.path, None) for task in tasks)
    assert all(found.arrays[name].tobytes() == array.tobytes() for name, array in expected.arrays.items())
    assert sum(seen) == expected.provenance["products"] + 4  # two were interrupted, two proved the checkpoint
    assert read_attempt(tasks[1]).attempts == 1  # those that were cut short do not count
