"""Files that are either absent or complete."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from repro.storage.sealed import SEAL, seal


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file in a folder beside `path`, force it to disk, then give it its name in one step.

    A reader never sees a half-written file and a killed writer leaves no file under `path`.
    The temporary folder also holds what the libraries that write make for themselves. What killed processes of this
    machine left beside `path` is removed; what is being written is locked, and so left alone.

    Raises:
        OSError: the file cannot be written (full disk, no permission, a file where a folder should be).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        with _temporary_folder(path) as folder:
            unfinished = folder / path.name
            write(unfinished)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
    except OSError as error:
        raise refused(path, error) from error


def check_folder(folder: Path) -> None:
    """Make a folder for results, before anything is computed for it, and remove what killed writers left in it.

    Raises:
        OSError: it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission, or a read-only disk")
        _remove_abandoned(folder, "**/")
    except OSError as error:
        raise refused(folder, error) from error


def refused(path: Path, error: OSError) -> OSError:
    """What to raise where a file or folder could not be written: with its path, and with advice."""
    reason = f"cannot write {path}: {error.strerror or error}"
    advice = "make room, or choose a folder you may write to (outputs=...)"
    return OSError(error.errno or errno.EIO, f"{reason}; {advice}")


@contextlib.contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, locked while it is in use and removed afterwards."""
    while True:
        folder = Path(tempfile.mkdtemp(".tmp", f".{path.name}.{os.uname().nodename}.", path.parent))
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                held = stack.enter_context(_locked(folder, wait=True))
            except FileNotFoundError:  # another process took it for abandoned before it was locked
                held = False
            if held:
                yield folder
                return


def _remove_abandoned(folder: Path, below: str = "") -> None:
    for unfinished in folder.glob(f"{below}.*.{os.uname().nodename}.*.tmp"):
        with contextlib.suppress(OSError), _locked(unfinished, wait=False) as held:  # OSError: it is gone by now
            if held:
                shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a temporary folder; yields whether we do.

    The system gives it back when a process ends, however it ends, and tells processes apart that have the same number
    in different containers. Where there are no locks, whoever waits for one is told that it is held and others that it
    is not: folders are written, but not removed.
    """
    lock = folder / ".lock"
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = lock.exists() and lock.stat().st_ino == os.fstat(file.fileno()).st_ino  # else removed meanwhile
        except OSError:
            held = wait
        yield held


def write_sealed(path: Path, write: Callable[[Path], object]) -> None:
    """The same for a file that `write` leaves with a `SEAL` in it: it proves its content when it is read."""

    def sealed(unfinished: Path) -> None:
        write(unfinished)
        seal(unfinished)

    write_atomically(path, sealed)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as indented JSON that proves its content; `sealed.read_json` reads it.

    NaN and infinity are refused by the reader's standard, so by us.
    """
    text = json.dumps({"sealed": SEAL, **content}, indent=1, allow_nan=False) + "\n"
    write_sealed(path, lambda unfinished: unfinished.write_text(text))
