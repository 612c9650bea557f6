"""The index saves opening files, and is believed only of the very files that were read."""

import json
import os
import time

import pytest

from repro.storage.files import write_json
from repro.storage.index import SETTLED, known, remembering
from repro.storage.sealed import read_json


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with a file in it that was written some time ago."""
    write_json(tmp_path / "a.json", {"a": 1})
    later = time.time_ns() + int(10 * SETTLED)
    monkeypatch.setattr(time, "time_ns", lambda: later)
    return tmp_path


@pytest.fixture
def look(root):
    """What is known of the file, by a command of its own; with whether it had to be read."""

    def look():
        asked = []
        with remembering(root):
            found = known(root / "a.json", lambda path: asked.append(path) or read_json(path))
        return found, bool(asked)

    return look


def test_what_is_unchanged_is_read_once(look):
    assert look() == ({"a": 1}, True)
    assert look() == ({"a": 1}, False)


def test_a_file_replaced_is_read_again(root, look):
    look()
    write_json(root / "a.json", {"a": 2})
    assert look() == ({"a": 2}, True)


def test_a_file_changed_in_place_is_read_again_whatever_its_date(root, look, caplog):
    look()
    path = root / "a.json"
    date = path.stat()
    path.write_text(path.read_text().replace("1", "2"))
    os.utime(path, ns=(date.st_atime_ns, date.st_mtime_ns))
    assert look() == (None, True)
    assert "a.json is damaged" in caplog.text
    assert look() == (None, False)  # it is set aside


def test_a_file_removed_is_forgotten(root, look):
    look()
    (root / "a.json").unlink()
    assert look() == (None, False)
    assert "a.json" not in json.loads((root / "index.json").read_text())


def test_a_file_so_new_that_its_date_may_not_tell_is_not_remembered(root, look, monkeypatch):
    now = (root / "a.json").stat().st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: now)
    assert look() == look() == ({"a": 1}, True)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"junk"])
def test_a_damaged_index_is_as_good_as_none(root, look, damage, caplog):
    look()
    (root / "index.json").write_bytes(damage)
    assert look() == ({"a": 1}, True)
    assert "index.json is damaged" in caplog.text
    assert look() == ({"a": 1}, False)


def test_a_changed_index_is_not_believed(root, look):
    look()
    text = (root / "index.json").read_text()
    assert '{"a":1}' in text
    (root / "index.json").write_text(text.replace('{"a":1}', '{"a":2}'))
    assert look() == ({"a": 1}, True)


def test_it_is_written_only_where_something_was_learnt(root, look):
    look()
    before = (root / "index.json").stat().st_mtime_ns
    look()
    assert (root / "index.json").stat().st_mtime_ns == before


def test_a_folder_that_may_only_be_read_needs_no_index(root, look, monkeypatch):
    monkeypatch.setattr("repro.storage.index.write_sealed", lambda *_: (_ for _ in ()).throw(PermissionError("closed")))
    assert look() == look() == ({"a": 1}, True)


def test_without_an_index_in_use_files_are_read(root):
    assert known(root / "a.json", read_json) == {"a": 1}
    assert not (root / "index.json").exists()
