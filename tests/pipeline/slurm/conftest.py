"""A cluster to test on, and toy experiments on it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import as_documented, changed

from repro.pipeline import tasks
from repro.pipeline.launch import queue, slurm, status
from repro.pipeline.launch.hints import Hints
from repro.pipeline.launch.submissions import read_submitted

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
NODE = REPOSITORY / "scripts" / "slurm_node.sh"

sys.path.insert(0, str(HERE / "toy"))
import toy_stages  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def cluster():
    """SLURM answers; without it the tests are skipped, in CI they fail."""
    try:
        done = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, timeout=60)
        problem = done.stderr if done.returncode else ""
    except FileNotFoundError:
        problem = "sinfo is not installed"
    if problem:
        reason = f"no SLURM here ({problem.strip()}); scripts/slurm_node.sh up starts one"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@pytest.fixture
def own_node():
    """scripts/slurm_node.sh, where the cluster is the one it started; others are not ours to restart."""
    folder = Path(os.environ.get("SLURM_NODE_DIR", "/var/lib/slurm_node"))
    if Path(os.environ.get("SLURM_CONF", "/")).parent != folder:
        pytest.skip("needs the cluster of scripts/slurm_node.sh, which may be restarted")

    def up(**settings):
        subprocess.run([NODE, "up"], env={**os.environ, **settings}, check=True, capture_output=True, timeout=300)

    up.folder = folder
    yield up
    up()


class Toy:
    """A toy experiment below `root`."""

    def __init__(self, root, runs=6):
        self.root, self.stages = root, toy_stages.toy_tasks(root, runs)
        small = {"gpus_per_node": None, "cpus_per_task": 1, "mem": "1GB", "time": 5, "signal_delay_s": 10}
        documented = as_documented()
        each = {stage: small | {"tasks_per_job": None} for stage in documented.stages}
        each["sweep"]["tasks_per_job"] = 2
        self.launch = changed(documented, retries=0, **each)

    def change(self, **changes):
        """Have other values in the launch configuration: retries=2, sweep={...}."""
        self.launch = changed(self.launch, **changes)

    def fault(self, what, *indices):
        for index in indices:
            path = toy_stages.fault_path(self.root, self.stages["sweep"][index].name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(what)

    def heal(self):
        for path in (self.root / "faults").iterdir():
            path.unlink()

    def submit(self):
        return slurm.submit(self.stages, self.root, self.launch, Hints(["experiment=toy"]))

    def look(self):
        return status.look(self.stages, queue.jobs_of(self.root), read_submitted(self.root))

    def report(self):
        return "\n".join(status.report(self.stages, self.root, self.launch, Hints(["experiment=toy"])))

    def wait(self, seconds=240):
        """Until no job is left; what is pending for ever fails here."""
        until(lambda: not queue.jobs_of(self.root), seconds, lambda: queue.jobs_of(self.root))

    def restart_requeued(self, job):
        """Wait until a job was put back into the queue, where it has to wait for two minutes; let it start at once."""

        def requeued():
            restarts = queue.command("scontrol", "show", "job", job).split("Restarts=")[1].split()[0]
            return restarts == "1" and {j.id: j.state for j in queue.jobs_of(self.root)}.get(job) == "PENDING"

        until(requeued, 90, lambda: queue.jobs_of(self.root))
        until(lambda: set(queue.command("sinfo", "--noheader", "--format=%T").split()) == {"idle"}, 60)
        time.sleep(3)  # the node may still be ending the first attempt, and a job that starts then fails at once
        queue.command("scontrol", "update", f"JobId={job}", "StartTime=now")

    def compute_here(self, *stages):
        """Without jobs, so that they are left with the others."""
        for stage in stages:
            for task in self.stages[stage]:
                tasks.run(task)

    def logs(self):
        return "\n".join(status.unfinished_logs(self.stages, self.root))

    def completed(self, stage="sweep"):
        return toy_stages.completions(self.root, stage)

    def codes(self):
        """The files that the jobs had their tasks from."""
        results = [json.loads(path.read_text()) for path in self.root.glob("results/*/*.json")]
        return {result["code"] for result in results}

    def result(self, stage, name):
        return toy_stages.read({"root": str(self.root)}, stage, name)

    def check_complete(self):
        """Nothing was lost, nothing was computed twice, and the selection is that of a run on this machine."""
        for stage in ("sweep", "retrain", "measure"):
            assert self.completed(stage) == {t.name.replace("/", "_"): 1 for t in self.stages[stage]}, stage
        local = toy_stages.toy_tasks(self.root / "local", len(self.stages["sweep"]))
        for task in (*local["sweep"], *local["select"]):
            tasks.run(task)
        there = toy_stages.read({"root": str(self.root / "local")}, "select", "toy")
        assert self.result("select", "toy") == there
        assert self.result("report", "toy") == list(there.values())


def until(condition, seconds, what=lambda: ""):
    """Wait for a condition; fail with `what()` when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.3)


@pytest.fixture
def toy_below(monkeypatch):
    """Toy experiments below folders that are given; their jobs are cancelled at the end."""
    monkeypatch.setenv("PYTHONPATH", str(HERE / "toy"))  # sbatch hands the environment on
    made = []

    def toy_below(folder):
        made.append(Toy(folder / "toy"))
        made[-1].until = until
        return made[-1]

    yield toy_below
    for experiment in made:
        queue.cancel(experiment.root)


@pytest.fixture
def documented_launch():
    return as_documented()


@pytest.fixture
def toy(toy_below, tmp_path):
    return toy_below(tmp_path)
