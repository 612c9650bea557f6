"""The record of what was submitted."""

from pathlib import Path

from repro.pipeline.launch.attempts import begin, end, read_attempt
from repro.pipeline.launch.submissions import (
    Submission,
    Submitted,
    done_elsewhere,
    read_submitted,
    submitted_path,
    write_submitted,
)


def test_jobs_and_logs_of_a_task(stages):
    first, second, *_ = stages["sweep"]
    (select,) = stages["select"]
    submitted = Submitted(
        [
            Submission("sweep", [[first.name], [second.name]], "/logs", ["7", "8"]),
            Submission("select", [[select.name]], "/logs", ["9"]),
        ]
    )
    assert submitted.jobs(second) == ["7_1", "8_1"]
    assert submitted.jobs(select) == ["9"]  # an array of one is a job
    assert submitted.logs(second) == [Path("/logs/7_1_0_log.out"), Path("/logs/8_1_0_log.out")]
    assert stages["report"][0] not in submitted
    assert submitted.jobs(stages["report"][0]) == []


def test_what_is_submitted_anew_keeps_the_others_jobs(stages):
    first, second, third, *_ = stages["sweep"]
    before = Submitted([Submission("sweep", [[first.name], [second.name, third.name]], "/logs", ["7"])])
    left = before.without([first, second])
    assert first not in left
    assert left.jobs(third) == before.jobs(third) == ["7_1"]
    assert before.without([first, second, third]).submissions == []


def test_a_damaged_record_is_none(tmp_path, caplog):
    assert read_submitted(tmp_path).submissions == []
    for damage in ("", "{", '[{"stage": "sweep"}]', "[1]"):
        submitted_path(tmp_path).parent.mkdir(exist_ok=True)
        submitted_path(tmp_path).write_text(damage)
        caplog.clear()
        assert read_submitted(tmp_path).submissions == []
        assert "is damaged" in caplog.text


def test_what_was_done_without_a_job_no_longer_counts_as_lost_or_failed(stages, tmp_path):
    for stage in ("select", "report"):
        (task,) = stages[stage]
        end(task, begin(task, "9", tmp_path / "log"), ValueError("no"))
    record = [Submission(stage, [[stages[stage][0].name]], "/logs", ["9"]) for stage in ("select", "report")]
    write_submitted(tmp_path, record)
    done_elsewhere(stages["select"])
    assert stages["select"][0] not in read_submitted(tmp_path)
    assert stages["report"][0] in read_submitted(tmp_path)
    assert read_attempt(stages["select"][0]) is None
    assert read_attempt(stages["report"][0]) is not None
