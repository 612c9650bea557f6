"""The whole chain on a real cluster, with tasks that fail in every way."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

from repro.pipeline.launch import queue, slurm, status
from repro.pipeline.launch.attempts import read_attempt
from repro.pipeline.launch.hints import Hints
from repro.pipeline.launch.queue import SlurmError

pytestmark = pytest.mark.slurm

DRIVER = """
import pickle, sys, time
from pathlib import Path
from repro.pipeline.launch import slurm
from repro.pipeline.launch.hints import Hints
slurm.submit(*pickle.loads(Path(sys.argv[1]).read_bytes()), Hints([]))
print("submitted", flush=True)
time.sleep(600)
"""


def driver(toy):
    """A process that submits the experiment, says so, and lives on."""
    given = toy.root.parent / "experiment.pkl"
    given.write_bytes(pickle.dumps((toy.stages, toy.root, toy.launch)))
    line = [sys.executable, "-c", DRIVER, given]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def states(toy, stage="sweep"):
    return {seen.task.name: seen.state for seen in toy.look() if seen.task.stage == stage}


def test_gate_refuses_then_retry_does_the_rest(toy):
    toy.change(retries=2)
    raises, dies_once, dies = (toy.stages["sweep"][i] for i in (0, 3, 4))
    toy.fault("raise", 0)
    toy.fault("kill once", 3)
    toy.fault("kill", 4)
    toy.submit()
    toy.wait()
    assert [name for name, state in states(toy).items() if state == "failed"] == [raises.name]
    assert states(toy, "select") == {"toy": "failed"}
    assert states(toy, "report") == {"toy": "lost"}  # SLURM cancelled its job
    assert read_attempt(raises).attempts == 1  # an exception is not tried again
    assert "the toy raises" in read_attempt(raises).trace
    assert read_attempt(dies_once).attempts == 2
    assert read_attempt(dies).attempts == 3
    assert states(toy)[dies.name] == "lost"
    assert not toy.completed("retrain")  # the gate refused
    assert not toy.completed("figures")
    shown = toy.report()
    assert "ValueError: the toy raises" in shown
    assert "its job died: " in shown
    deadline = time.monotonic() + 60  # accounting may lag behind the queue
    while "FAILED" not in shown and time.monotonic() < deadline:
        time.sleep(1)
        shown = toy.report()
    assert "FAILED" in shown
    logs = "\n".join(status.unfinished_logs(toy.stages, toy.root))
    assert "Traceback" in logs

    toy.heal()
    before = toy.completed()
    toy.change(retries=0)
    assert f"sweep: {6 - len(before)} tasks" in toy.submit()[0]
    toy.wait()
    toy.check_complete()


def test_meets_its_time_limit_and_resumes(toy):
    toy.fault("hang once", 2)
    toy.change(sweep={"time": 1, "tasks_per_job": 6})
    toy.change(sweep={"signal_delay_s": 50})
    toy.submit()
    (job,) = [job.id for job in queue.jobs_of(toy.root) if job.stage == "sweep"]
    toy.restart_requeued(job)
    toy.wait()
    toy.check_complete()
    hung = toy.stages["sweep"][2]
    assert json.loads((toy.root / "results/sweep" / f"{hung.name.replace('/', '_')}.json").read_text())["kept"] == 5
    assert read_attempt(hung).attempts == 1  # the interrupted attempt does not count


def test_preempted_and_resumes(toy, own_node):
    toy.fault("hang once", 0)
    toy.change(sweep={"time": 60, "tasks_per_job": 6, "exclusive": True})
    toy.submit()
    (job,) = [job.id for job in queue.jobs_of(toy.root) if job.stage == "sweep"]
    toy.until(lambda: list((toy.root / "faults").glob("*.kept")), 30)
    urgent = ["sbatch", "--parsable", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true"]
    subprocess.run(urgent, check=True, capture_output=True)
    toy.restart_requeued(job)
    toy.wait()
    toy.check_complete()


def test_cancel_is_respected_and_retry_completes(toy):
    toy.fault("slow", 1, 5)
    (toy.root / "stall").touch()
    toy.submit()
    toy.until(lambda: states(toy)[toy.stages["sweep"][1].name] == "running", 30)
    queue.cancel(toy.root)
    toy.wait(40)
    assert len(toy.completed()) < 6
    assert states(toy)[toy.stages["sweep"][1].name] == "lost"
    (toy.root / "stall").unlink()
    toy.submit()
    toy.wait()
    toy.check_complete()


def test_driver_killed_during_submission(toy):
    first = driver(toy)
    toy.until(lambda: queue.jobs_of(toy.root), 60)
    first.kill()
    first.communicate()
    queue.cancel(toy.root)
    toy.wait(60)
    toy.submit()  # the lock of the one that was killed does not stand in the way
    toy.wait()
    toy.check_complete()


def test_two_drivers_do_the_work_once_and_need_not_live_on(toy):
    toy.change(retries=1)
    drivers = [driver(toy), driver(toy)]
    toy.until(lambda: any(d.poll() is not None for d in drivers), 120)
    (loser,) = [d for d in drivers if d.poll() is not None]
    (winner,) = [d for d in drivers if d is not loser]
    assert "SlurmError" in loser.communicate()[1]
    assert winner.stdout.readline() == "submitted\n"
    with pytest.raises(SlurmError, match="in the queue already"):
        toy.submit()
    winner.kill()
    winner.communicate()
    toy.wait()
    toy.check_complete()
    (code,) = (toy.root / "slurm" / "code").iterdir()  # the jobs ran the copy made at submission
    assert toy.codes() == {str(code.resolve() / "repro" / "pipeline" / "tasks.py")}
    assert (code / "COMMIT").read_text().strip()


def test_small_arrays_and_a_controller_that_restarts(toy, own_node):
    own_node(SLURM_NODE_MAX_ARRAY_SIZE="2")
    assert queue.limits().array_size == 2
    toy.change(sweep={"tasks_per_job": 1})
    toy.fault("slow", *range(6))
    lines = toy.submit()
    assert [line.split()[1:7] for line in lines[:3]] == [["sweep:", "2", "tasks", "in", "2", "jobs"]] * 3
    toy.until(lambda: any(job.state == "RUNNING" for job in queue.jobs_of(toy.root)), 30)
    controller = own_node.folder / "slurmctld.pid"
    os.kill(int(controller.read_text()), signal.SIGTERM)
    toy.until(lambda: not controller.exists(), 20)
    shown = toy.report()
    assert "the queue does not answer" in shown
    own_node(SLURM_NODE_MAX_ARRAY_SIZE="2")
    toy.wait()
    toy.check_complete()


def test_a_refused_array_takes_the_others_along(toy):
    toy.fault("slow", *range(6))
    toy.change(measure={"partition": "nowhere"})
    with pytest.raises(SlurmError, match=r"stage measure failed: .*invalid partition.*cancelled"):
        toy.submit()
    toy.wait(20)
    assert not toy.completed("select")


def test_refuses_more_jobs_than_the_cluster_holds(toy):
    toy.change(sweep={"tasks_per_job": 1})
    many = {"sweep": toy.stages["sweep"] * (queue.limits().jobs // 5)}
    with pytest.raises(SlurmError, match=r"12\d* jobs do not fit: .*MaxJobCount = \d+"):
        slurm.submit(many, toy.root, toy.launch, Hints([]))
    assert not queue.jobs_of(toy.root)


def test_dry_run_shows_every_dependency_and_submits_nothing(toy):
    toy.change(retries=1)
    shown = slurm.dry_run(toy.stages, toy.root, toy.launch)
    assert sum("sbatch" in line for line in shown) == 9
    assert "afterok:<2>,afterany:<3>" in "".join(shown)
    assert not toy.root.exists()
    assert not queue.jobs_of(toy.root)
