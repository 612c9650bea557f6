"""The copy of the package that jobs run."""

import os
import shutil
import time

from repro.pipeline.launch.snapshot import PACKAGE, snapshot
from repro.pipeline.launch.start import digest_of


def test_snapshot_holds_the_package_once(tmp_path):
    code = snapshot(tmp_path)
    assert snapshot(tmp_path) == code
    assert [path.name for path in tmp_path.iterdir()] == [code.name]
    copied = {
        path.relative_to(code / "repro"): path.read_bytes() for path in (code / "repro").rglob("*") if path.is_file()
    }
    ours = {path.relative_to(PACKAGE): path.read_bytes() for path in PACKAGE.rglob("*") if path.is_file()}
    assert copied == {name: content for name, content in ours.items() if "__pycache__" not in name.parts}
    assert (code / "COMMIT").read_text().strip()
    assert digest_of(code) == code.name


def test_an_incomplete_snapshot_is_made_again(tmp_path):
    code = snapshot(tmp_path)
    (code / "repro" / "storage" / "files.py").unlink()
    (code / "repro" / "added.py").touch()
    (code / "COMMIT").write_text("")
    assert digest_of(code) != code.name
    assert snapshot(tmp_path) == code
    assert digest_of(code) == code.name


def test_files_are_new_to_a_cleaner_that_goes_by_dates(tmp_path):
    begun = time.time() - 1
    for path in (code := snapshot(tmp_path)).rglob("*"):
        os.utime(path, (1e9, 1e9))
    snapshot(tmp_path)
    assert min(path.stat().st_mtime for path in code.rglob("*") if path.is_file()) > begun


def test_the_locks_of_editors_do_not_matter(tmp_path, monkeypatch):
    shutil.copytree(PACKAGE / "storage", tmp_path / "package")
    (tmp_path / "package" / ".#files.py").symlink_to("someone@host.123")
    monkeypatch.setattr("repro.pipeline.launch.snapshot.PACKAGE", tmp_path / "package")
    assert (snapshot(tmp_path / "code") / "package" / "files.py").exists()


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".123.tmp" / "repro").mkdir(parents=True)
    code = snapshot(tmp_path)
    assert list(tmp_path.iterdir()) == [code]
