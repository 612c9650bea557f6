"""No byte of a stored file can change unnoticed; what is damaged is set aside and counts as missing."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro.storage.files import write_json, write_sealed
from repro.storage.results import load_provenance, load_result, save_result
from repro.storage.runs import read_table, write_table
from repro.storage.sealed import SEAL, DamagedError, prove_file, proven, read_json, stored


def write_result(path):
    save_result(path, {"a": np.arange(5.0)}, {"code": "abc"})


KINDS = {  # by suffix: what writes such a file, and what reads it
    "json": (lambda path: write_json(path, {"a": [1.5, None], "b": "sha"}), read_json),
    "csv": (lambda path: write_table(path, [{"lr": 0.1, "title": "x"}]), read_table),
    "npz": (
        lambda path: save_result(path, {"a": np.arange(5.0)}, {"code": "abc"}),
        lambda path: load_result(path, None),
    ),
}


def write(folder, kind):
    path = folder / f"file.{kind}"
    KINDS[kind][0](path)
    return path


@pytest.mark.parametrize("kind", KINDS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.data())
def test_every_byte_is_proven(tmp_path, kind, data):
    path = write(tmp_path, kind)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=rf"file\.{kind} is damaged"):
        KINDS[kind][1](path)
    with pytest.raises(DamagedError):
        prove_file(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 1, -1, -70])
def test_what_is_cut_is_damaged_and_what_is_whole_is_not(tmp_path, kind, length):
    path = write(tmp_path, kind)
    prove_file(path)
    content = proven(path)
    path.write_bytes(content[:length])
    for read in (prove_file, KINDS[kind][1]):
        with pytest.raises(DamagedError):
            read(path)


def test_what_is_added_is_damage_too(tmp_path):
    path = write(tmp_path, "json")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DamagedError, match="its content does not match its digest"):
        read_json(path)


@pytest.mark.parametrize("text", ["no seal", f"sha256:{'ab' * 32} {SEAL}"])
def test_what_could_not_prove_itself_is_not_written(tmp_path, text):
    with pytest.raises(ValueError, match="cannot be sealed"):
        write_sealed(tmp_path / "a", lambda path: path.write_text(text))
    assert os.listdir(tmp_path) == []


def test_damaged_files_are_set_aside_one_beside_the_other(tmp_path, caplog):
    path = tmp_path / "a.json"
    for number in (1, 2):
        path.write_text(f"junk {number}")
        assert stored(path, read_json) is None
        assert (tmp_path / f"a.json.damaged-{number}").read_text() == f"junk {number}"
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} is damaged (there is no digest of its content in it), set aside as a.json.damaged-{number}; "
        "it counts as missing"
        for number in (1, 2)
    ]
    assert stored(path, read_json) is None
    write_json(path, {"a": 1})
    assert stored(path, read_json) == {"a": 1}
    assert len(caplog.records) == 2


def test_content_that_proves_itself_but_is_of_another_kind_is_damaged(tmp_path, caplog):
    path = tmp_path / "a.npz"
    write_json(path, {"a": 1})
    assert stored(path, load_provenance) is None
    assert path.with_name("a.npz.damaged-1").exists()


def test_a_folder_in_place_of_a_file_is_set_aside(tmp_path, caplog):
    (tmp_path / "a.json").mkdir()
    assert stored(tmp_path / "a.json", read_json) is None
    assert "it is a folder" in caplog.text
    assert os.listdir(tmp_path) == ["a.json.damaged-1"]


def test_where_nothing_can_be_renamed_it_counts_as_missing_all_the_same(tmp_path, monkeypatch, caplog):
    path = tmp_path / "a.json"
    path.write_text("")

    def read_only(self, target):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "rename", read_only)
    assert stored(path, read_json) is None
    assert "a.json is damaged (it is empty), cannot be set aside (Read-only file system)" in caplog.text
    assert path.exists()


def test_a_file_made_anew_since_it_was_read_is_left_alone(tmp_path, caplog):
    path = tmp_path / "a.json"
    path.write_text("junk")

    def read(path):
        try:
            return read_json(path)
        finally:
            write_json(path, {"a": 1})  # by another process

    assert stored(path, read) is None
    assert read_json(path) == {"a": 1}
    assert caplog.records == []


def test_a_file_closed_to_us_is_no_damage(tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    path = write(tmp_path, "json")
    with pytest.raises(PermissionError):
        stored(path, closed)
    assert path.exists()
