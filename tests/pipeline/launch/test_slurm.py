"""Chains, states and records without a cluster; tests/slurm has the real ones."""

import subprocess
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from repro.pipeline import tasks
from repro.pipeline.launch import queue, slurm, status
from repro.pipeline.launch.attempts import begin, end, forget, interrupt, read_attempt
from repro.pipeline.launch.queue import Job, SlurmError
from repro.pipeline.launch.slurm import chain
from repro.pipeline.launch.snapshot import PACKAGE, snapshot
from repro.pipeline.tasks import Stage, Task

CONF = Path(__file__).resolve().parent.parent.parent.parent / "conf" / "launch" / "slurm.yaml"


@pytest.fixture
def launch():
    return OmegaConf.to_container(OmegaConf.load(CONF))


@pytest.fixture
def stages(tmp_path, monkeypatch):
    """Five trainings and what follows; a task is finished when its file is there."""
    toy = Stage(lambda config: None, lambda config: Path(config["root"], config["name"]).exists())
    monkeypatch.setattr(tasks, "STAGES", dict.fromkeys(tasks.STAGES, toy))

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


def test_chain_packs_splits_and_depends(stages, launch):
    launch["retries"] = 1
    launch["stages"]["sweep"]["tasks_per_job"] = 2
    arrays = chain(stages, launch, array_size=2)
    assert [(a.stage, a.attempt, [len(c) for c in a.chunks]) for a in arrays[:4]] == [
        ("sweep", 0, [2, 2]), ("sweep", 0, [1]), ("sweep", 1, [2, 2]), ("sweep", 1, [1]),
    ]  # fmt: skip
    ids = [str(position) for position in range(len(arrays))]
    assert [(a.stage, a.dependency(ids)) for a in arrays] == [
        ("sweep", None),
        ("sweep", None),
        ("sweep", "afterany:0:1"),
        ("sweep", "afterany:0:1"),
        ("select", "afterany:2:3"),
        ("retrain", "afterok:4"),
        ("retrain", "afterok:4,afterany:5"),
        ("measure", "afterok:4,afterany:6"),
        ("measure", "afterok:4,afterany:7"),
        ("figures", "afterok:4,afterany:8"),
        ("report", "afterok:4,afterany:9"),
    ]
    assert [len(c) for c in arrays[-2].chunks] == [2]  # null: all figures in one job


def test_chain_leaves_out_what_is_finished(stages, launch, tmp_path):
    for task in (*stages["sweep"], *stages["retrain"]):
        (tmp_path / task.config["name"]).touch()
    arrays = chain(stages, launch, array_size=1000)
    assert [a.stage for a in arrays] == ["select", "measure", "measure", "measure", "figures", "report"]
    assert arrays[0].dependency([]) is None


def test_chain_computes_again_what_is_forced(stages, launch, tmp_path):
    for task in stages["sweep"]:
        (tmp_path / task.config["name"]).touch()
        task.config["force"] = True
    (array, *_) = chain(stages, launch, array_size=1000)
    assert sum(len(chunk) for chunk in array.chunks) == 5


def test_states_trust_files_before_the_queue(stages, tmp_path):
    done, failed, running, lost, _ = stages["sweep"]
    (tmp_path / done.config["name"]).touch()
    end(failed, begin(failed, "7_1", tmp_path / "log"), ValueError("no"))
    begin(done, "7_0", tmp_path / "log")  # its job was killed after it had stored the result
    begin(running, "7_2", tmp_path / "log")
    begin(lost, "6_3", tmp_path / "log")

    def states(jobs):
        return [seen.state for seen in status.look({"sweep": stages["sweep"]}, jobs)]

    jobs = [Job("7_2", "sweep", "RUNNING", "None")]
    assert states(jobs) == ["done", "failed", "running", "queued", "queued"]  # the pass that runs may still do them
    assert states([]) == ["done", "failed", "lost", "lost", "missing"]
    assert states(None) == ["done", "failed", "running", "running", "missing"]
    assert states([Job("7_2", "sweep", "PENDING", "BeginTime")])[2] == "queued"


def test_attempts_count_deaths_but_not_interruptions(stages, tmp_path):
    task = stages["sweep"][0]
    begin(task, "1", tmp_path)
    assert read_attempt(task).attempts == 1
    attempt = begin(task, "1", tmp_path)
    assert attempt.attempts == 2
    interrupt(task, attempt)
    assert begin(task, "1", tmp_path).attempts == 2
    forget(task)
    assert read_attempt(task) is None


def test_report_without_accounting(stages, tmp_path, monkeypatch):
    begin(stages["sweep"][0], "1", tmp_path / "job.err")

    def command(*words):
        if words[0] == "sacct":
            raise SlurmError("no accounting")
        return ""

    monkeypatch.setattr(queue, "command", command)
    shown = "\n".join(status.report(stages, tmp_path))
    assert "1 x its job died: accounting does not say how" in shown
    assert str(tmp_path / "job.err") in shown


def test_queue_is_read_by_comment(tmp_path, monkeypatch):
    mark, other = queue.comment(tmp_path, "sweep"), queue.comment(tmp_path / "other", "sweep")
    lines = f"12|3|15|RUNNING|None|{mark}\n13|N/A|13|PENDING|Dependency|{mark}\n9|0|9|RUNNING|None|{other}\n"
    monkeypatch.setattr(queue, "command", lambda *words: lines)
    assert queue.jobs_of(tmp_path) == [
        Job("12_3", "sweep", "RUNNING", "None"), Job("13", "sweep", "PENDING", "Dependency"),
    ]  # fmt: skip


def test_snapshot_holds_the_package_once(tmp_path):
    code = snapshot(tmp_path)
    assert snapshot(tmp_path) == code
    assert [path.name for path in tmp_path.iterdir()] == [code.name]
    assert (code / "repro" / "tasks.py").read_bytes() == (PACKAGE / "tasks.py").read_bytes()
    assert (code / "COMMIT").exists()
    assert not list(code.rglob("__pycache__"))


def test_no_cluster_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match=r"scontrol is not found: .*launch=local"):
        queue.limits()


def test_a_command_that_hangs_is_given_up(monkeypatch, tmp_path):
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(queue, "PATIENCE", 0.2)
    with pytest.raises(SlurmError, match="squeue did not answer"):
        queue.queue_length()


def test_sbatch_that_hangs_is_given_up(stages, launch, monkeypatch, tmp_path):
    """The queue is full: sbatch sleeps and tries again."""
    for name, text in (("sbatch", "exec sleep 60"), ("srun", ":"), ("squeue", ":"), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(slurm, "SBATCH_PATIENCE", 1)
    start = time.monotonic()
    with pytest.raises(SlurmError, match="sbatch of 5 jobs of stage sweep failed: no answer within 1 s"):
        slurm.submit(stages, tmp_path / "toy", launch)
    assert time.monotonic() - start < 20
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "sleep 60" not in [line.strip() for line in processes.splitlines()]


SCONTROL = "printf 'MaxArraySize = 1001\\nMaxJobCount = 10000\\n'"
