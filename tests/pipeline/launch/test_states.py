"""States of tasks by their files, the record of what was submitted, and the queue."""

import pytest

from repro.pipeline.launch.attempts import attempt_path, begin, end
from repro.pipeline.launch.queue import Job
from repro.pipeline.launch.states import Watch, look
from repro.pipeline.launch.submissions import Submission, Submitted, write_submitted


def names(tasks):
    return [[task.name] for task in tasks]


@pytest.fixture
def record(stages):
    """Every stage submitted as one array of one task per job, the sweep in two passes."""
    arrays = {"sweep": ["7", "8"], "select": ["9"], "retrain": ["10"], "measure": ["11"], "figures": ["12"]}
    return [Submission(stage, names(stages[stage]), "logs", ids) for stage, ids in arrays.items()]


def sweep_states(stages, jobs, record=()):
    return [seen.state for seen in look({"sweep": stages["sweep"]}, jobs, Submitted(record))]


@pytest.fixture
def tried(stages, finish, tmp_path):
    """Of five tasks: one whose job was killed after it had stored the result, one that raised, two that were begun."""
    done, failed, running, lost, _ = stages["sweep"]
    finish(done)
    end(failed, begin(failed, "7_1", tmp_path / "log"), ValueError("no"))
    for task, job in ((done, "7_0"), (running, "7_2"), (lost, "6_3")):
        begin(task, job, tmp_path / "log")


@pytest.mark.usefixtures("tried")
def test_files_are_trusted_before_the_queue(stages):
    running = [Job("7_2", "sweep", "RUNNING", "None")]
    assert sweep_states(stages, running) == [
        "done",
        "failed",
        "running",
        "queued",
        "queued",
    ]  # whose job is not recorded
    assert sweep_states(stages, []) == ["done", "failed", "lost", "lost", "missing"]
    assert sweep_states(stages, None) == ["done", "failed", "running", "running", "missing"]
    assert sweep_states(stages, [Job("7_2", "sweep", "PENDING", "BeginTime")])[2] == "queued"


@pytest.mark.usefixtures("tried")
def test_a_task_is_queued_only_while_a_job_that_holds_it_is(stages, record):
    """Another's job of the last pass does not stand for it."""
    last_pass = [Job("8_2", "sweep", "RUNNING", "None"), Job("8_4", "sweep", "PENDING", "Resources")]
    assert sweep_states(stages, last_pass, record) == ["done", "failed", "queued", "lost", "queued"]


def test_what_was_submitted_and_is_neither_queued_nor_done_is_lost_whatever_the_stage(stages, record):
    seen = look(stages, [Job("10", "retrain", "PENDING", "Dependency")], Submitted(record))
    states = {(s.task.stage, s.task.name): s.state for s in seen}
    assert {states.pop(("sweep", task.name)) for task in stages["sweep"]} == {"lost"}
    assert states == {
        ("select", "toy"): "lost",
        ("retrain", "data/net/n4"): "queued",
        ("measure", "data/net/n4/spectrum"): "lost",
        ("figures", "3"): "lost",
        ("figures", "4"): "lost",
    }


def test_stages_made_anew_are_done_when_their_job_says_so(stages, record, tmp_path):
    (task,) = stages["select"]
    end(task, begin(task, "9", tmp_path / "log"))
    (seen,) = look({"select": [task]}, [], Submitted(record))
    assert seen.state == "done"


def test_a_damaged_attempt_is_set_aside_and_the_task_counts_as_not_tried(stages, tmp_path, caplog):
    task = stages["sweep"][0]
    for damage in ("", "[]", '{"attempts": "x", "job": 1, "log": "", "host": "", "started": 0}', "\xff"):
        begin(task, "7_0", tmp_path / "log")
        attempt_path(task).write_bytes(damage.encode("latin1"))
        caplog.clear()
        assert sweep_states(stages, [])[0] == "missing"
        assert [record.message.count("\n") for record in caplog.records] == [0]
        assert not attempt_path(task).exists()
        assert sweep_states(stages, []) == ["missing"] * 5
        assert len(caplog.records) == 1


def test_watching_asks_only_what_may_have_changed(stages, record, finish, tmp_path, asked):
    write_submitted(tmp_path, record)
    watch = Watch(stages, tmp_path)
    jobs = [Job(f"7_{i}", "sweep", "RUNNING" if i < 2 else "PENDING", "None") for i in range(5)]
    jobs += [
        Job(id, stage, "PENDING", "Dependency") for id, stage in (("9", "select"), ("10", "retrain"), ("11", "measure"))
    ]
    jobs += [Job("12_0", "figures", "PENDING", "Dependency"), Job("12_1", "figures", "PENDING", "Dependency")]
    assert watch.look(jobs) == {"queued": 10}
    asked.clear()
    assert watch.look(jobs) == {"queued": 10}
    assert asked == []
    for task, job in zip(stages["sweep"], ("7_0", "7_1"), strict=False):
        begin(task, job, tmp_path / "log")
    assert watch.look(jobs) == {"running": 2, "queued": 8}
    assert asked == []  # at work, whatever files are there by now
    finish(stages["sweep"][0])
    assert watch.look(jobs[1:]) == {"done": 1, "running": 1, "queued": 8}
    assert asked == ["data_net_n4_lr0"]
    assert watch.look([]) == {"done": 1, "lost": 9}
    asked.clear()
    finish(stages["sweep"][1])  # seen late, as on a file system of many machines
    assert watch.look([])["done"] == 2
    assert "data_net_n4_lr0" not in asked  # what was done stays so


def test_watching_sees_what_is_submitted_meanwhile(stages, record, tmp_path):
    watch = Watch(stages, tmp_path)
    assert watch.look([])["missing"] == 7
    write_submitted(tmp_path, record)
    assert watch.look([Job("8_0", "sweep", "PENDING", "Priority")]) == {"queued": 1, "lost": 9}
