"""Files that are either absent or complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file in a folder beside `path`, force it to disk, then give it its name in one step.

    A reader never sees a half-written file and a killed writer leaves no file under `path`.
    The temporary folder also holds what the libraries that write make for themselves. Its name holds the process id, so
    that two writers do not share it, and so that what killed processes of this machine left beside `path` can be told
    from what is being written, and is removed.

    Raises:
        OSError: the file cannot be written (full disk, no permission, a file where a folder should be).
    """
    folder = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    unfinished = folder / path.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        folder.mkdir(exist_ok=True)
        write(unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:  # where nothing could be written there is nothing
        shutil.rmtree(folder, ignore_errors=True)


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
        raise _refused(folder, error) from error


def _refused(path: Path, error: OSError) -> OSError:
    reason = f"cannot write {path}: {error.strerror or error}"
    advice = "make room, or choose a folder you may write to (outputs=...)"
    return OSError(error.errno or errno.EIO, f"{reason}; {advice}")


def _remove_abandoned(folder: Path, below: str = "") -> None:
    for unfinished in folder.glob(f"{below}.*.{os.uname().nodename}.*.tmp"):
        process = unfinished.name.split(".")[-2]
        if process.isdecimal() and not _alive(int(process)):
            shutil.rmtree(unfinished, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing, only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # someone else's
        pass
    return True


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically; NaN and infinity are refused by the reader's standard, so by us."""
    write_atomically(path, lambda p: p.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n"))
