"""What goes wrong around the program: a full disk, a folder that cannot be written, a clock that runs backwards."""

import errno
import itertools
import os
import shutil
import signal
import threading
import time

import preloaded
import pytest

from repro.pipeline import tasks
from repro.pipeline.experiment import Experiment
from repro.pipeline.launch import status
from repro.pipeline.launch.attempts import begin, end, read_attempt
from repro.pipeline.launch.local import FailedTasksError, Workers, log_path
from repro.pipeline.launch.queue import Job
from repro.pipeline.launch.states import Seen, look
from repro.pipeline.launch.submissions import Submitted
from repro.storage import files
from repro.storage.results import load_provenance
from repro.storage.runs import read_run

WRITTEN = {  # by stage, the last file of it
    "sweep": "runs/fashion_mnist_embedded/mlp/n6/lr002.json",
    "select": "selected.csv",
    "retrain": "selected/fashion_mnist_embedded/mlp/n6/run.json",
    "measure": "results/fashion_mnist_embedded/mlp/n6/hessian_spectrum.npz",
    "figures": "figures/x01.csv",
    "report": "report/index.html",
}


def stages_below(outputs):
    return Experiment(["experiment=smoke", "n_per_class=6", "device=cpu", f"outputs={outputs}"]).stages()


def run(stages):
    for of_stage in stages.values():
        for task in of_stage:
            tasks.run(task)


@pytest.fixture(scope="module")
def backwards(tmp_path_factory):
    """An experiment computed while the clock was set back an hour each time that someone looked at it."""
    outputs = tmp_path_factory.mktemp("backwards")
    with pytest.MonkeyPatch.context() as patched:
        clock = itertools.count(1.7e9, -3600)
        patched.setattr(time, "time", lambda: next(clock))
        run(stages_below(outputs))
    return outputs


def test_a_clock_that_runs_backwards_leaves_durations_alone(backwards):
    runs = [read_run(path) for path in backwards.glob("smoke/runs/**/*.json")]
    assert len(runs) == 3
    results = [load_provenance(path) for path in backwards.glob("smoke/results/**/*.npz")]
    assert all(0 < made["seconds"] < 600 for made in [*(run["provenance"] for run in runs), *results])


@pytest.mark.parametrize("when", [0, 2**31])
def test_what_is_finished_is_told_by_its_content_not_by_dates(backwards, tmp_path, when):
    shutil.copytree(backwards, tmp_path, dirs_exist_ok=True)
    for number, path in enumerate(sorted(tmp_path.rglob("*"))):
        os.utime(path, (when, when + number if number % 2 else when - number))
    computed = {stage: of_stage for stage, of_stage in stages_below(tmp_path).items() if stage in tasks.COMPUTED}
    assert [tasks.unfinished(of_stage) for of_stage in computed.values()] == [[], [], []]


def test_a_task_that_ended_before_it_began_does_not_count_for_the_pace(tmp_path, monkeypatch):
    task = stages_below(tmp_path)["sweep"][0]
    seconds = iter([1000.0, 400.0])
    monkeypatch.setattr("repro.pipeline.launch.attempts.time.time", lambda: next(seconds))
    end(task, begin(task, "7", tmp_path / "job.err"))
    attempt = read_attempt(task)
    assert attempt.ended < attempt.started
    seen = [Seen(task, "done", attempt), Seen(task, "running", attempt)]
    assert status._pace(seen) == []
    attempt.ended = attempt.started + 30
    assert status._pace(seen) == ["sweep: 1 at once, 30 s a task, 120 tasks an hour, about 0.0 h to go"]
    assert look({"sweep": [task]}, [Job("7", "sweep", "RUNNING", "")], Submitted())[0].state == "running"


@pytest.mark.parametrize("stage", WRITTEN)
def test_a_full_disk_in_any_stage(backwards, tmp_path, monkeypatch, stage):
    """One sentence, no unfinished file, and once there is room the stage goes on."""
    shutil.copytree(backwards, tmp_path, dirs_exist_ok=True)
    root, of_stage = tmp_path / "smoke", stages_below(tmp_path)[stage]
    (root / WRITTEN[stage]).unlink()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match=r"\A[^\n]*cannot write .*: No space left on device; make room[^\n]*\Z"):
            run({stage: of_stage})
    assert not (root / WRITTEN[stage]).exists()
    assert not list(root.rglob("*.tmp"))
    run({stage: of_stage})
    assert (root / WRITTEN[stage]).stat().st_size > 0


def test_outputs_that_cannot_be_written_are_refused_before_anything_is_computed(tmp_path):
    (tmp_path / "outputs").write_text("a file where a folder should be")
    done = preloaded.run("scripts/reproduce.py", "all", "experiment=smoke", f"outputs={tmp_path / 'outputs'}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"cannot write {tmp_path}/outputs/smoke: Not a directory; make room, or choose a folder" in done.stderr
    assert done.stdout == ""


def test_a_read_only_folder_of_outputs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OSError, match=r"cannot write .*no permission, or a read-only disk; .* choose a folder"):
        files.check_folder(tmp_path / "new")


def test_a_worker_that_is_killed_is_named_with_its_log(tmp_path):
    """As by the kernel when memory runs out; what the others have finished is kept."""
    overrides = ["experiment=smoke", "n_per_class=6", "training.epochs=4000", f"outputs={tmp_path}"]
    task = Experiment(overrides).stages()["sweep"][0]

    def kill(workers):
        while not log_path(task).exists():
            time.sleep(0.01)
        (worker,) = workers._pool._processes
        os.kill(worker, signal.SIGKILL)

    with Workers(1) as workers:
        threading.Thread(target=kill, args=[workers]).start()
        with pytest.raises(FailedTasksError, match=r"1 of 1 tasks of stage sweep failed") as caught:
            workers.run([task])
    assert f"a worker process was killed (out of memory?); log: {log_path(task)}" in str(caught.value)
    assert not tasks.finished(task)


def test_tasks_that_ran_when_a_worker_was_killed_are_run_again_alone_and_the_others_go_on(tmp_path):
    """Two may be too much for the memory where each alone is not; and the innocent ones are not given up."""
    overrides = ["experiment=smoke", "n_per_class=4,5,6", "training.epochs=1000", f"outputs={tmp_path}"]
    pending = Experiment(overrides).stages()["sweep"]
    assert len(pending) >= 3

    def kill(workers):
        while sum(log_path(task).exists() for task in pending) < 2:
            time.sleep(0.01)
        os.kill(next(iter(workers._pool._processes)), signal.SIGKILL)

    with Workers(2) as workers:
        killer = threading.Thread(target=kill, args=[workers])
        killer.start()
        workers.run(pending)
        killer.join()
    assert all(tasks.finished(task) for task in pending)


def test_a_cell_of_which_every_training_diverged_is_not_retrained(backwards, tmp_path):
    shutil.copytree(backwards, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("smoke/runs/**/*.json"):
        run_there = read_run(path)
        run_there["metrics"] |= {"diverged": True, "test_error": 0.9}
        files.write_json(path, run_there)
    (task,) = stages_below(tmp_path)["retrain"]
    (tmp_path / "smoke/selected/fashion_mnist_embedded/mlp/n6/run.json").unlink()
    with pytest.raises(ValueError, match="every training of fashion_mnist_embedded/mlp/n6 diverged; there is nothing"):
        tasks.run(task)
