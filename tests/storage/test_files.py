"""A file under its final name is complete."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile

import pytest

from repro.storage.files import check_folder, write_atomically, write_json
from repro.storage.sealed import read_json


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "deep" / "result.json"
    write_json(path, {"a": 1})

    def fail(unfinished):
        unfinished.write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, fail)
    assert read_json(path) == {"a": 1}
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
    here = os.uname().nodename
    kept = ".a.json.elsewhere.12.tmp"  # the locks of other machines may not be known here
    for name in (kept, f".a.json.{here}.xyz.tmp", f".b.json.{here}.12.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.json").write_text("half")
    (tmp_path / f".a.json.{here}.xyz.tmp" / ".lock").touch()
    write_json(tmp_path / "c.json", {})
    assert sorted(os.listdir(tmp_path)) == sorted(["c.json", kept])


def test_what_was_killed_before_it_could_tidy_up_is_removed_at_the_next_start(tmp_path):
    (tmp_path / "runs" / "n4" / f".lr001.json.{os.uname().nodename}.12.tmp").mkdir(parents=True)
    check_folder(tmp_path)
    assert os.listdir(tmp_path / "runs" / "n4") == []


WRITER = """
import sys, time
from pathlib import Path
from repro.storage.files import write_atomically
def write(path):
    path.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
    path.write_text("whole")
write_atomically(Path(sys.argv[1]), write)
"""


@pytest.mark.parametrize("contained", [False, True], ids=["here", "in a container"])
def test_what_is_being_written_is_left_alone(tmp_path, contained):
    """Also that of another container of this machine, whose numbers of processes say nothing here."""
    path = tmp_path / "a.json"
    container = ["unshare", "--user", "--map-root-user", "--pid", "--fork"] if contained else []
    if contained and subprocess.run([*container, "true"], capture_output=True).returncode:
        pytest.skip("namespaces are not allowed here")
    line = [*container, sys.executable, "-c", WRITER, path]
    writer = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "writing\n"
    check_folder(tmp_path)
    write_json(tmp_path / "c.json", {})
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    writer.communicate("")
    assert path.read_text() == "whole"
    assert sorted(os.listdir(tmp_path)) == ["a.json", "c.json"]


def test_two_that_write_the_same_file_do_not_share_a_folder(tmp_path):
    path = tmp_path / "a.json"

    def write(unfinished):
        unfinished.write_text("outer")
        write_atomically(path, lambda inner: inner.write_text("inner"))
        assert path.read_text() == "inner"

    write_atomically(path, write)
    assert path.read_text() == "outer"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_taken_for_abandoned_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    made, real = [], tempfile.mkdtemp

    def mkdtemp(*args):
        made.append(real(*args))
        if len(made) == 1:
            os.rmdir(made[0])
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    write_json(tmp_path / "a.json", {})
    assert len(made) == 2
    assert os.listdir(tmp_path) == ["a.json"]


def test_without_locks_files_are_written_and_nothing_is_removed(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / f".a.json.{os.uname().nodename}.12.tmp").mkdir()
    write_json(tmp_path / "c.json", {})
    assert len(os.listdir(tmp_path)) == 2


def test_values_that_are_not_json_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()
