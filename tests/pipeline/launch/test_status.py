"""What people are told."""

import pytest

from repro.pipeline.launch import fates, queue, status
from repro.pipeline.launch.attempts import begin, end
from repro.pipeline.launch.hints import Hints
from repro.pipeline.launch.local import log_path
from repro.pipeline.launch.queue import Job, NoClusterError, SlurmError
from repro.pipeline.launch.submissions import Submission, job_log, write_submitted

HINTS = Hints(["experiment=toy", "launch=slurm"])


@pytest.fixture
def accounting(monkeypatch):
    """An empty queue; sacct answers what is put in here, and not at all while that is empty."""
    answer = []

    def command(*words):
        if words[0] == "sacct" and not answer:
            raise SlurmError("no accounting")
        return "\n".join(answer) if words[0] == "sacct" else ""

    for module in (queue, fates):
        monkeypatch.setattr(module, "command", command)
    return answer


@pytest.fixture
def submitted(stages, tmp_path):
    """Two jobs of the sweep, of one task and of two, in two passes, and one job for both figures."""
    a, b, c, *_ = (task.name for task in stages["sweep"])
    figures = [task.name for task in stages["figures"]]
    record = [
        Submission("sweep", [[a], [b, c]], str(tmp_path), ["7", "8"]),
        Submission("figures", [figures], str(tmp_path), ["9"]),
    ]
    write_submitted(tmp_path, record)


def told(stages, root, launch):
    return "\n".join(status.report(stages, root, launch, HINTS))


@pytest.mark.usefixtures("accounting")
def test_report_without_accounting(stages, tmp_path, launch):
    begin(stages["sweep"][0], "1", tmp_path / "job.out")
    shown = told(stages, tmp_path, launch)
    assert "1 x its job died: accounting does not say how" in shown
    assert str(tmp_path / "job.out") in shown
    assert "`make retry EXPERIMENT=toy LAUNCH=slurm` submits them again" in shown


@pytest.mark.usefixtures("submitted")
def test_report_says_what_lost_tasks_died_of_and_which_setting_helps(stages, tmp_path, launch, accounting):
    accounting += ["8_0|FAILED|0:9", "8_0.0|OUT_OF_MEMORY|0:125", "8_1|FAILED|3:0", "9|CANCELLED|0:0"]
    begin(stages["sweep"][0], "8_0", job_log(tmp_path, "8_0"))
    job_log(tmp_path, "8_1").write_text("module: command not found\n")
    shown = told(stages, tmp_path, launch)
    assert "1 x its job died: OUT_OF_MEMORY, raise launch.stages.sweep.mem (now 16GB)" in shown
    assert "2 x its job died: FAILED with exit code 3" in shown
    assert "2 x its job never began: CANCELLED" in shown
    assert f"e.g. sweep {stages['sweep'][1].name}: {job_log(tmp_path, '8_1')}" in shown


def test_a_task_that_took_its_jobs_along_is_told_with_their_fate(stages, tmp_path, launch, accounting):
    from repro.pipeline.launch.job import JobDiedError

    accounting += ["8_0|OUT_OF_MEMORY|0:125"]
    task = stages["sweep"][0]
    end(task, begin(task, "8_0", tmp_path / "log"), JobDiedError("its job died 3 times"))
    shown = told(stages, tmp_path, launch)
    assert "OUT_OF_MEMORY, raise launch.stages.sweep.mem" in shown
    assert f"{log_path(task)}, {tmp_path / 'log'}" in shown


@pytest.mark.usefixtures("accounting", "submitted")
def test_logs_of_jobs_that_died_before_they_began_their_tasks(stages, tmp_path):
    job_log(tmp_path, "8_1").write_text("line 5: module: command not found\n")
    begin(stages["sweep"][0], "8_0", job_log(tmp_path, "8_0"))
    log_path(stages["sweep"][0]).parent.mkdir(parents=True)
    log_path(stages["sweep"][0]).write_text("half way\n")
    shown = status.unfinished_logs(stages, tmp_path)
    assert "half way" in shown
    assert shown.count("line 5: module: command not found") == 1  # of two tasks
    assert f"-- {job_log(tmp_path, '8_1')}" in shown
    assert [line for line in shown if line.startswith("== figures: 2 tasks lost, their jobs never began")]


@pytest.mark.usefixtures("accounting")
def test_logs_are_not_without_end(stages, tmp_path, monkeypatch):
    monkeypatch.setattr(status, "MOST_LOGS", 2)
    for task in stages["sweep"]:
        begin(task, "7", tmp_path / "log")
    shown = status.unfinished_logs(stages, tmp_path)
    assert len([line for line in shown if line.startswith("== sweep")]) == 2
    assert shown[-1] == "== and 3 more"


def waits(stages, root, answers, monkeypatch):
    """What `wait` says and returns, when the queue answers in turn."""
    said, turns = [], iter(answers)

    def jobs_of(root):
        answer = next(turns)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(queue, "jobs_of", jobs_of)
    done = status.wait(stages, root, lambda line: said.append(line[10:]), seconds=0)
    assert next(turns, "asked to the end") == "asked to the end"
    return done, said


@pytest.mark.usefixtures("submitted")
def test_wait_is_not_done_when_what_is_made_anew_was_not(stages, tmp_path, finish, monkeypatch):
    finish(*stages["sweep"], *stages["retrain"], *stages["measure"])
    done, said = waits(stages, tmp_path, [[Job("9", "figures", "RUNNING", "")], [], []], monkeypatch)
    assert not done
    assert said == ["7 done, 2 queued; 1 jobs in the queue", "7 done, 2 lost; 0 jobs in the queue"]


def test_wait_is_done_when_all_is(stages, tmp_path, finish, monkeypatch):
    finish(*stages["sweep"], *stages["retrain"], *stages["measure"])
    assert waits(stages, tmp_path, [[]], monkeypatch)[0]


def test_wait_waits_out_a_queue_that_does_not_answer(stages, tmp_path, finish, monkeypatch):
    finish(*stages["sweep"], *stages["retrain"], *stages["measure"])
    jobs, silent = [Job("9", "figures", "RUNNING", "")], SlurmError("Unable to contact slurm controller")
    done, said = waits(stages, tmp_path, [silent, silent, jobs, silent, []], monkeypatch)
    assert done
    assert [line.startswith("the queue does not answer, and is waited for: Unable") for line in said] == [
        True, False, True, False,
    ]  # fmt: skip


def test_wait_does_not_wait_for_what_will_not_come(stages, tmp_path, monkeypatch):
    with pytest.raises(NoClusterError):
        waits(stages, tmp_path, [NoClusterError("squeue is not found")], monkeypatch)
    monkeypatch.setattr(status, "SILENCE", -1)
    with pytest.raises(SlurmError, match="down"):
        waits(stages, tmp_path, [SlurmError("down")], monkeypatch)
