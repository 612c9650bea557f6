"""What SLURM's commands say."""

import pytest

from repro.pipeline.launch import queue
from repro.pipeline.launch.queue import Job, NoClusterError, SlurmError


def test_queue_is_read_by_comment(tmp_path, monkeypatch):
    mark, other = queue.comment(tmp_path, "sweep"), queue.comment(tmp_path / "other", "sweep")
    lines = f"12|3|15|RUNNING|None|{mark}\n13|N/A|13|PENDING|Dependency|{mark}\n9|0|9|RUNNING|None|{other}\n"
    monkeypatch.setattr(queue, "command", lambda *words: lines)
    assert queue.jobs_of(tmp_path) == [
        Job("12_3", "sweep", "RUNNING", "None"), Job("13", "sweep", "PENDING", "Dependency"),
    ]  # fmt: skip


def test_no_cluster_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoClusterError, match=r"scontrol is not found: .*launch=local"):
        queue.limits()


def test_a_cluster_that_is_not_set_up_is_one_sentence(monkeypatch, tmp_path):
    complaint = "squeue: fatal: Could not establish a configuration source"
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho '{complaint}' >&2\nexit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(NoClusterError, match=r"squeue knows of no controller: .*LAUNCH=local"):
        queue.queue_length()


def test_a_command_that_hangs_is_given_up(monkeypatch, tmp_path):
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(queue, "PATIENCE", 0.2)
    with pytest.raises(SlurmError, match="squeue did not answer"):
        queue.queue_length()
