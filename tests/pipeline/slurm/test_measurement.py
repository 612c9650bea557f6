"""A measurement on a real cluster that is told of its time limit ends as one that nobody disturbed."""

import re
from dataclasses import asdict, replace

import pytest
from cells import small

from repro.measurements import find_measurement
from repro.pipeline.launch import queue
from repro.pipeline.launch.attempts import read_attempt
from repro.pipeline.launch.local import log_path, run_logged
from repro.pipeline.stages.measure import Measure, OwnWeights
from repro.pipeline.trained import build, save_weights
from repro.storage.results import load_result

pytestmark = pytest.mark.slurm


def test_a_measurement_in_the_midst_of_a_spectrum_is_requeued_and_goes_on(toy, machine, tmp_path):
    """The signal is the one that SLURM sends before the limit; sent by hand, it comes when there is a checkpoint."""
    kind, weights = find_measurement("hessian_spectrum"), tmp_path / "mine.safetensors"
    save_weights(weights, build(small()))
    settings = asdict(kind.settings(steps=150, spectra=["train_hessian", "train_gauss_newton"]))
    undisturbed, limited = (
        Measure(
            root=root,
            experiment="own",
            measurement=kind.name,
            settings=settings,
            version=kind.version,
            usual_steps=kind.settings.usual_steps,
            of=OwnWeights(weights=weights, trainings=small(), machine=replace(machine, checkpoint_seconds=0)),
            asked_device="cpu",
        )
        for root in (tmp_path / "undisturbed", toy.root)
    )
    toy.stages = {"measure": [limited]}
    toy.submit()
    (job,) = [job.id for job in queue.jobs_of(toy.root)]
    kept = limited.path.with_name(f"{kind.name}.unfinished")
    toy.until(lambda: len(list(kept.glob("*.products"))) > 5, 90, toy.logs)
    queue.command("scancel", "--signal=USR2", "--batch", job)
    run_logged(undisturbed, threads=1)  # while the job waits
    toy.restart_requeued(job)
    toy.wait()
    expected, found = (load_result(task.path, None) for task in (undisturbed, limited))
    assert all(found.arrays[name].tobytes() == array.tobytes() for name, array in expected.arrays.items())
    first, second = map(int, re.findall(r"(\d+) products of", log_path(limited).read_text()))
    assert first - second > 5  # that were left to make
    assert not kept.exists()
    assert read_attempt(limited).attempts == 1  # the one that was cut short does not count
