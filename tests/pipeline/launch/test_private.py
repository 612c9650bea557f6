"""Folders that nobody else can enter."""

import os
import stat

import pytest

from repro.pipeline.launch.private import private_files, private_folder


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_private_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        folder = private_folder(tmp_path / "new" / "jobs")
        with private_files() as told:
            (folder / "pickle").touch()
        (folder / "result").touch()
    finally:
        os.umask(before)
    assert told == umask
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "pickle", folder / "result")]
    assert modes == [0o700, 0o600, 0o666 & ~umask]


def test_a_folder_that_was_open_is_closed(tmp_path):
    (tmp_path / "jobs").mkdir(0o777)
    (tmp_path / "jobs").chmod(0o777)
    assert stat.S_IMODE(private_folder(tmp_path / "jobs").stat().st_mode) == 0o700


def test_links_files_and_others_folders_are_refused(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(PermissionError, match=f"{name} is no folder of yours.*outputs="):
            private_folder(tmp_path / name)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(PermissionError, match="elsewhere is no folder of yours"):
        private_folder(tmp_path / "elsewhere")
