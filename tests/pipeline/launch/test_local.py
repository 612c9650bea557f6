"""The logs of tasks; worker processes are tested where tasks are real."""

import errno
import logging

import pytest

from repro.pipeline import tasks
from repro.pipeline.launch.local import TaskLog, Workers, log_path, run_logged
from repro.pipeline.stages.measure import Measure
from repro.pipeline.stages.retrain import Retrain


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
