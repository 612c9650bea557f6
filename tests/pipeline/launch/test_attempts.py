"""Counting what jobs tried."""

import errno

from repro.pipeline.launch import attempts
from repro.pipeline.launch.attempts import begin, end, forget, interrupt, read_attempt


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


def test_a_note_that_cannot_be_written_stops_nothing(stages, tmp_path, monkeypatch, caplog):
    def full(path, content):
        raise OSError(errno.ENOSPC, f"cannot write {path}: no space")

    monkeypatch.setattr(attempts, "write_json", full)
    task = stages["sweep"][0]
    end(task, begin(task, "1", tmp_path))
    assert read_attempt(task) is None
    assert "no space" in caplog.text
