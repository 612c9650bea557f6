"""Every stored file proves its content: it holds a digest of all its bytes.

One way for every format. A file is written with `SEAL`, a digest of zeros, somewhere in it, and `seal` puts the digest
of the bytes in place of the zeros. Whoever reads puts zeros in place of the digest and compares, so that no byte can
change unnoticed. json has it under the first key, a csv table in a last line, npz in the comment of its zip archive,
safetensors in its metadata.

A file that does not prove its content is damaged. It is set aside under another name beside it, in one line, and from
then on is as missing as one that was never written: the next run makes it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import mmap
import os
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
ZEROS = b"0" * 64
SEAL = f"sha256:{ZEROS.decode()}"
MARK = re.compile(rb"sha256:([0-9a-f]{64})")  # the first of a file counts


class DamagedError(ValueError):
    """A file is not what was written; `reason` says what is wrong with it."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path} is damaged ({reason}); delete it, the next run makes it again")
        self.reason = reason


def seal(path: Path) -> None:
    """Put the digest of a file that is being written where its `SEAL` is.

    Raises:
        ValueError: there is none, or another digest comes before it.
    """
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = MARK.search(content)
            if found is None or found[1] != ZEROS:
                raise ValueError(f"{path} cannot be sealed: {SEAL} must be in it, before any other digest of that form")
            place = found.span(1)
            digest = _digest(content, place)
        file.seek(place[0])
        file.write(digest.encode())


def proven(path: Path) -> bytes:
    """The content of a file that proves it.

    Raises:
        FileNotFoundError: it is not there.
        DamagedError: it is not what was written.
    """
    content = path.read_bytes()
    _prove(path, content)
    return content


def prove_file(path: Path) -> None:
    """Refuse a file that is not what was written, without holding it in memory; raises as `proven` does."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # which cannot be mapped
            _prove(path, b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _prove(path, content)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong in the block is damage of a file, but for what the system says (OSError).

    Raises:
        DamagedError: naming the file.
    """
    try:
        yield
    except (OSError, DamagedError):
        raise
    except Exception as error:
        raise DamagedError(path, f"{type(error).__name__}: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; raises as `proven` does."""
    with reading(path):
        content = json.loads(proven(path))
        del content["sealed"]
        return content


def stored(path: Path, read: Callable[[Path], T]) -> T | None:
    """What `read` finds in a file; None where there is no such file, or a damaged one, which is set aside.

    A damaged file that has been made anew since it was read is left alone. Damage is whatever `reading` takes for it.
    """
    try:
        before = path.stat()
        with reading(path):
            return read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        reason = "it is a folder"
    except DamagedError as error:
        reason = error.reason
    with contextlib.suppress(FileNotFoundError):
        now = path.stat()
        if (now.st_ino, now.st_ctime_ns) == (before.st_ino, before.st_ctime_ns):
            set_aside(path, reason)
    return None


def set_aside(path: Path, reason: str) -> None:
    """Give a damaged file another name beside it, and say so in one line; where it cannot be renamed it stays."""
    target = _free_name(path)
    try:
        path.rename(target)
        what = f"set aside as {target.name}"
    except FileNotFoundError:  # another process was faster
        return
    except OSError as error:  # a folder that may only be read
        what = f"cannot be set aside ({error.strerror})"
    log.warning("%s is damaged (%s), %s; it counts as missing", path, " ".join(reason.split()), what)


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


def _prove(path: Path, content: bytes | mmap.mmap) -> None:
    found = MARK.search(content)
    if found is None:
        raise DamagedError(path, "there is no digest of its content in it" if len(content) else "it is empty")
    if found[1].decode() != _digest(content, found.span(1)):
        raise DamagedError(path, "its content does not match its digest")


def _digest(content: bytes | mmap.mmap, place: tuple[int, int]) -> str:
    """Of the content with zeros at one place."""
    with memoryview(content) as view:
        state = hashlib.sha256(view[: place[0]])
        state.update(ZEROS)
        state.update(view[place[1] :])
    return state.hexdigest()
