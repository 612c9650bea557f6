"""Folders for what runs as its owner: nobody else can put something else in its place."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def private_folder(folder: Path) -> Path:
    """Make a folder that its owner alone may enter, whatever the umask; returns it.

    Raises:
        PermissionError: what is there is no folder, a link, or someone else's.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(
            f"{folder} is no folder of yours, and jobs run as you from it; remove it, or choose another (outputs=...)"
        )
    folder.chmod(0o700)
    return folder


@contextlib.contextmanager
def private_files() -> Iterator[int]:
    """Files that are made in the block are closed to others; yields the umask from before."""
    before = os.umask(0o077)
    try:
        yield before
    finally:
        os.umask(before)
