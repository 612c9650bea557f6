"""A real experiment on a real cluster: both ways of launching come to what this machine computes by itself."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from stored_runs import outcomes, selected

from repro.pipeline.experiment import Experiment
from repro.pipeline.launch import queue
from repro.pipeline.launch.attempts import read_attempt

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).resolve().parents[3]
SMALL = [f"launch.stages.{stage}.gpus_per_node=null" for stage in ("sweep", "retrain", "measure")]
SMALL += ["launch.resources.cpus_per_task=1", "launch.resources.time=10", "launch.rates_per_task=2", "launch.retries=0"]


def script(name, *words, check=True):
    done = subprocess.run([sys.executable, f"scripts/{name}", *words], cwd=ROOT, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The smoke experiment on this machine, up to the selection."""
    outputs = tmp_path_factory.mktemp("local")
    for command in ("sweep", "select"):
        script("reproduce.py", command, "experiment=smoke", f"outputs={outputs}")
    return outputs / "smoke"


@pytest.fixture
def outputs(tmp_path):
    yield tmp_path
    queue.cancel(tmp_path / "smoke")


def test_the_whole_chain_to_figures_and_report(outputs, local):
    words = ["experiment=smoke", "launch=slurm", f"outputs={outputs}", *SMALL]
    root = outputs / "smoke"
    said = script("reproduce.py", "all", *words).stdout
    assert "select: 1 tasks in 1 jobs, afterany:" in said
    assert f"`make status EXPERIMENT=smoke LAUNCH=slurm ARGS='outputs={outputs} " in said
    interrupted_wait_leaves_the_jobs_alone(root, words)
    script("reproduce.py", "wait", *words)
    pd.testing.assert_frame_equal(selected(root), selected(local))
    assert outcomes(root) == outcomes(local)
    stages = Experiment(words).stages()
    assert all(read_attempt(task).attempts == 1 for tasks in stages.values() for task in tasks)
    for task in stages["figures"]:
        number = task.figure
        name = f"x{int(number[1:]):02d}" if number.startswith("x") else f"fig{int(number):02d}"
        assert (root / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert "finished cells" in script("reproduce.py", "status", *words).stdout
    before = {path: path.stat().st_mtime_ns for path in root.glob("runs/**/*.json")}
    assert "sweep" not in script("reproduce.py", "retry", "--dry-run", *words).stdout.split("select")[0]
    assert {path: path.stat().st_mtime_ns for path in root.glob("runs/**/*.json")} == before


def interrupted_wait_leaves_the_jobs_alone(root, words):
    waiting = subprocess.Popen(
        [sys.executable, "scripts/reproduce.py", "wait", *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a CI without terminal may have it ignored
    )  # fmt: skip
    assert "jobs in the queue" in waiting.stdout.readline()
    time.sleep(0.5)
    waiting.send_signal(signal.SIGINT)
    assert re.search(r"`make wait EXPERIMENT=smoke LAUNCH=slurm ARGS=.*` attaches again", waiting.communicate()[1])
    assert waiting.returncode == 1
    assert queue.jobs_of(root)


def test_stock_hydra_launcher_with_an_array(outputs, local, monkeypatch):
    words = ["-m", "experiment=smoke", f"outputs={outputs}", "n_per_class=4", "lr_index=0,1"]
    # A training takes 0.9 GB, which counts twice while it starts a program (git) with its own pages.
    resources = [f"hydra.launcher.{key}" for key in ("timeout_min=5", "mem_gb=3", "cpus_per_task=1")]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sbatch hands the environment on
    script("train.py", *words, "hydra/launcher=submitit_slurm", *resources)
    expected = {
        path: outcome for path, outcome in outcomes(local).items() if path.endswith(("n4/lr000.json", "n4/lr001.json"))
    }
    assert len(expected) == 2
    assert outcomes(outputs / "smoke") == expected
