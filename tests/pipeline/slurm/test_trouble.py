"""What goes wrong around jobs is named, whatever it is, and nothing else is computed instead."""

import os
import signal
import stat
import subprocess
import threading

import pytest
from launching import changed

from repro.pipeline.launch import queue, status
from repro.pipeline.launch.queue import SlurmError

pytestmark = pytest.mark.slurm


def states(toy, stage):
    return {seen.state for seen in toy.look() if seen.task.stage == stage}


def waited(toy):
    """Whether all was done, and what was said, until no job was left."""
    said = []
    return status.wait(toy.stages, toy.root, said.append, seconds=0.3), said


def test_outputs_of_any_name(toy_below, tmp_path, monkeypatch):
    """The jobs run the copy below that folder, nothing in its name is run, and logs are where they are looked for."""
    monkeypatch.chdir(tmp_path)
    toy = toy_below(tmp_path / "o'b\"r:i en\n$(touch X)`touch X`;#&")
    toy.change(sweep={"tasks_per_job": 6})
    toy.submit()
    assert waited(toy)[0], toy.logs()
    toy.check_complete()
    (code,) = (toy.root / "slurm" / "code").iterdir()
    assert {str(code / "repro" / "pipeline" / "tasks.py")} == toy.codes()
    assert not list(tmp_path.rglob("X"))
    assert len(list(toy.root.glob("slurm/jobs/*/*_log.out"))) == 6  # one job per stage


def test_jobs_that_die_before_python_starts_are_lost_and_their_log_is_shown(toy):
    """Whatever the stage: here only what is always made anew was left to do."""
    toy.compute_here("sweep", "select", "retrain", "measure")
    toy.change(figures={"setup": ["echo module: no such module >&2", "exit 3"]})
    toy.submit()
    done, said = waited(toy)
    assert not done
    assert "lost" in said[-1]
    assert states(toy, "figures") == {"lost"}
    assert "module: no such module" in toy.logs()
    toy.until(lambda: "its job died: FAILED with exit code 3" in toy.report(), 30, toy.report)
    assert "_log.out" in toy.report()
    toy.change(figures={"setup": []})
    toy.submit()
    assert waited(toy)[0]


def test_a_copy_of_the_code_that_became_incomplete_is_refused_and_made_again(toy):
    toy.change(sweep={"additional_parameters": {"hold": True}, "tasks_per_job": 6})
    toy.submit()
    (code,) = (toy.root / "slurm" / "code").iterdir()
    (code / "repro" / "storage" / "files.py").unlink()
    (job,) = [job.id for job in queue.jobs_of(toy.root) if job.stage == "sweep"]
    queue.command("scontrol", "release", job)
    assert not waited(toy)[0]
    assert toy.completed() == {}
    assert states(toy, "sweep") == {"lost"}
    assert f"{code}, the code of this job, is not what was submitted" in toy.logs()
    toy.change(sweep={"additional_parameters": {}})
    toy.submit()
    assert waited(toy)[0]
    toy.check_complete()


def test_wait_waits_out_a_controller_that_restarts(toy, own_node):
    toy.change(sweep={"tasks_per_job": 6})
    toy.fault("slow", 0, 1)
    toy.submit()
    found = []
    waiting = threading.Thread(target=lambda: found.extend(waited(toy)))
    waiting.start()
    controller = own_node.folder / "slurmctld.pid"
    os.kill(int(controller.read_text()), signal.SIGTERM)
    toy.until(lambda: not controller.exists(), 20)
    with pytest.raises(SlurmError):
        queue.jobs_of(toy.root)
    own_node()
    waiting.join(60)
    done, said = found
    assert done
    assert any("the queue does not answer, and is waited for" in line for line in said)
    toy.check_complete()


def test_too_little_memory_is_told_with_the_setting_to_raise(toy):
    toy.change(sweep={"mem": "300MB", "tasks_per_job": 6})
    toy.fault("eat", 5)
    toy.submit()
    assert not waited(toy)[0]
    eater = toy.stages["sweep"][5].name
    toy.until(lambda: "its job died: OUT_OF_MEMORY, raise launch.stages.sweep.mem (now 300MB)" in toy.report(), 30)
    assert f"e.g. sweep {eater}" in toy.report()


@pytest.fixture
def few_jobs(own_node):
    """A limit of the user's, as sites set them."""

    def limit(value):
        change = ["sacctmgr", "-i", "modify", "user", "root", "set", f"MaxSubmitJobs={value}"]
        subprocess.run(change, check=True, capture_output=True)

    limit(2)
    yield
    limit(-1)


@pytest.mark.usefixtures("few_jobs")
def test_a_limit_of_the_user_is_refused_with_advice(toy):
    with pytest.raises(SlurmError, match=r"sbatch of 3 jobs .* raise launch.petaflop_per_task or .*tasks_per_job"):
        toy.submit()
    assert not queue.jobs_of(toy.root)


def test_a_lost_task_is_lost_while_the_last_pass_over_the_others_runs(toy):
    toy.change(sweep={"tasks_per_job": 3})
    toy.fault("kill", 0)
    toy.fault("slow", 3)
    (toy.root / "stall").touch()
    toy.submit()
    first, fourth = (toy.stages["sweep"][i].name for i in (0, 3))
    both = {first: "lost", fourth: "running"}  # the other job may have begun later
    toy.until(lambda: both.items() <= {s.task.name: s.state for s in toy.look()}.items(), 60, toy.look)


def test_jobs_are_private_and_results_follow_the_umask(toy):
    toy.change(sweep={"tasks_per_job": 6})
    before = os.umask(0o002)
    try:
        toy.submit()
    finally:
        os.umask(before)
    assert waited(toy)[0]

    def modes(paths):
        return {stat.S_IMODE(path.stat().st_mode) for path in paths}

    assert modes([toy.root / "slurm", *toy.root.glob("slurm/*/")]) == {0o700}
    assert modes(toy.root.glob("slurm/jobs/*/*_submitted.pkl")) == {0o600}
    assert modes(toy.root.glob("slurm/jobs/*/*.sh")) == {0o600}
    assert modes(toy.root.glob("results/sweep/*.json")) == {0o664}


def test_what_is_documented_starts_here(toy, documented_launch):
    """What jobs ask for where nothing is said: CPUs, memory and a GPU."""
    toy.launch = changed(documented_launch, retries=0)
    toy.change(sweep={"tasks_per_job": 6})
    toy.submit()
    assert waited(toy)[0]
