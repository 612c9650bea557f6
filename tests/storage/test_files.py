"""A file under its final name is complete."""

import json
import os
import signal
import subprocess
import sys

import pytest

from repro.storage.files import check_folder, write_atomically, write_json


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "deep" / "result.json"
    write_json(path, {"a": 1})

    def fail(unfinished):
        unfinished.write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(path.parent) == ["result.json"]


def test_a_killed_writer_leaves_no_file_under_the_final_name(tmp_path):
    path = tmp_path / "result.json"
    code = (
        "import os, signal, sys; from pathlib import Path; from repro.storage.files import write_atomically\n"
        "def write(p): p.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(Path(sys.argv[1]), write)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(list(tmp_path.glob(".*.tmp"))) == 1


def test_the_next_writer_in_the_folder_removes_what_killed_ones_left(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here, sleeping = os.uname().nodename, os.getppid()  # the process ids of other machines say nothing here
    kept = [f".a.json.{here}.{sleeping}.tmp", f".a.json.{here}.1.tmp", f".a.json.elsewhere.{gone.pid}.tmp"]
    for name in (*kept, f".a.json.{here}.{gone.pid}.tmp", f".b.json.{here}.{gone.pid}.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.json").write_text("half")
    write_json(tmp_path / "c.json", {})
    assert sorted(os.listdir(tmp_path)) == sorted(["c.json", *kept])


def test_what_was_killed_before_it_could_tidy_up_is_removed_at_the_next_start(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "runs" / "n4" / f".lr001.json.{os.uname().nodename}.{gone.pid}.tmp").mkdir(parents=True)
    check_folder(tmp_path)
    assert os.listdir(tmp_path / "runs" / "n4") == []


def test_what_another_users_process_writes_is_left_alone(tmp_path, monkeypatch):
    def forbidden(process, _):
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    unfinished = tmp_path / f".a.json.{os.uname().nodename}.12.tmp"
    unfinished.mkdir()
    write_json(tmp_path / "c.json", {})
    assert unfinished.exists()


def test_values_that_are_not_json_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()
