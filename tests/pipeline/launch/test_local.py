"""The logs of tasks; worker processes are tested where tasks are real."""

import errno
import logging
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest

from repro.pipeline import tasks
from repro.pipeline.launch.local import TaskLog, Workers, _Counts, log_path, run_logged
from repro.pipeline.stages.measure import Measure
from repro.pipeline.stages.retrain import Retrain
from repro.pipeline.tasks import Task


@pytest.fixture
def chatty(stages, monkeypatch):
    """A task that says a hundred things."""

    def run(task):
        for number in range(100):
            logging.getLogger("chatty").info("line %d", number)

    monkeypatch.setattr(tasks, "run", run)
    monkeypatch.setattr(TaskLog, "said", False)
    return stages["sweep"][0]


def test_a_task_has_its_log(chatty):
    run_logged(chatty)
    lines = log_path(chatty).read_text().splitlines()
    assert len(lines) == 101
    assert "done in" in lines[-1]


def full(handler):
    """As the stream of a file on a full disk: nothing is written, and what was not written fails again when closed."""

    class Stream:
        def write(self, text=""):
            raise OSError(errno.ENOSPC, "No space left on device")

        flush = close = write

    return Stream()


def test_on_a_full_disk_the_task_goes_on_and_it_is_said_once(chatty, monkeypatch, capsys):
    monkeypatch.setattr(TaskLog, "_open", full)
    run_logged(chatty)
    run_logged(chatty)  # nor again for the next task
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"cannot write {log_path(chatty)} ([Errno 28] No space left on device); the tasks go on" in said
    assert not any(isinstance(handler, TaskLog) for handler in logging.getLogger().handlers)


def test_where_no_log_can_be_opened_the_task_goes_on(chatty, capsys):
    log_path(chatty).parent.parent.mkdir(parents=True)
    log_path(chatty).parent.write_text("a file where a folder should be")
    run_logged(chatty)
    assert capsys.readouterr().err.count("\n") == 1


def test_what_the_task_raises_is_raised_whatever_the_log_does(chatty, monkeypatch, capsys):
    def fail(task):
        raise ValueError("no")

    monkeypatch.setattr(tasks, "run", fail)
    monkeypatch.setattr(TaskLog, "_open", full)
    with pytest.raises(ValueError, match="no"):
        run_logged(chatty)
    assert "Logging error" not in capsys.readouterr().err


def test_measurements_share_the_cores_that_would_idle_and_trainings_do_not(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    assert [Workers("auto").threads(Measure, count) for count in (1, 3, 8, 20)] == [8, 2, 1, 1]
    assert Workers("auto").threads(Retrain, 1) == 1  # its numbers would depend on how many run beside it
    assert Workers(2).threads(Measure, 1) == 1


@dataclass(frozen=True, kw_only=True)
class Endless(Task):
    """Says that it has begun, and never ends."""

    stage: ClassVar[str] = "sweep"
    name: ClassVar[str] = "endless"

    def run(self, device):
        (self.root / "begun").touch()
        time.sleep(600)


@pytest.fixture
def interrupts():
    """Ctrl-C raises KeyboardInterrupt, also where pytest was started with it ignored: in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_is_answered_at_once_and_ends_the_workers(tmp_path, capsys):
    def interrupt():
        while not (tmp_path / "begun").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), Workers(1) as workers:
        workers.run([Endless(root=tmp_path), Endless(root=tmp_path)])
    assert capsys.readouterr().err == "stopping ...\n"
    assert "Traceback" not in log_path(Endless(root=tmp_path)).read_text()  # the worker was told by its driver alone


def test_the_bar_says_that_workers_are_starting():
    from rich.progress import Progress

    for ready, text in ((False, "starting workers"), (True, "3/7 tasks")):
        with Progress(_Counts(lambda ready=ready: ready), disable=True) as bar:
            bar.add_task("sweep", done=3, count=7)
            assert bar.columns[0](bar.tasks[0]).plain == text
