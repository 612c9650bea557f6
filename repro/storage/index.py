"""What is in an experiment's files, remembered, so that thousands of them need not be opened each time.

    outputs/<experiment>/index.json

Of each file the index has what a reader found in it once it had proved its content. That is believed as long as size,
inode and the time of its last change (ctime, which nobody can set) are those of the file that was read; else the file
is read again. The index can be deleted at any time, and one that is damaged is as good as none. It is kept by rename:
of two processes that write it the last one wins, and either is right.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from repro.storage.files import write_sealed
from repro.storage.sealed import SEAL, read_json, stored

SETTLED = 2e9  # nanoseconds after which a further change of a file is sure to give it another ctime


class Index:
    """The index of the files below an experiment's folder."""

    def __init__(self, root: Path):
        self._root = f"{root}{os.sep}"
        self._path = root / "index.json"
        self._known: dict[str, Any] = stored(self._path, read_json) or {}
        self._changed = False

    def known(self, path: Path, read: Callable[[Path], Any]) -> Any:
        """What `read` finds in a file, of which json keeps everything; None where it is not there, or damaged."""
        name = str(path).removeprefix(self._root)
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            self._changed |= self._known.pop(name, None) is not None
            return None
        mark = [found.st_size, found.st_ino, found.st_ctime_ns]
        remembered = self._known.get(name)
        if remembered is not None and remembered[0] == mark:
            return remembered[1]
        content = stored(path, read)
        if content is not None and found.st_ctime_ns + SETTLED < time.time_ns():
            self._known[name] = [mark, content]
            self._changed = True
        return content

    def save(self) -> None:
        """Write what has been learnt; where nothing can be written it has to be learnt again."""
        if self._changed:
            text = json.dumps({"sealed": SEAL, **self._known}, separators=(",", ":"), allow_nan=False)
            with contextlib.suppress(OSError):
                write_sealed(self._path, lambda unfinished: unfinished.write_text(text))


_in_use: list[Index] = []


@contextlib.contextmanager
def remembering(root: Path) -> Iterator[None]:
    """Let `known` use the index of an experiment's folder in the block, which is written at its end."""
    index = Index(root)
    _in_use.append(index)
    try:
        yield
    finally:
        _in_use.remove(index)
        index.save()


def known(path: Path, read: Callable[[Path], Any]) -> Any:
    """What `read` finds in a file, of which json keeps everything; None where it is not there, or damaged.

    Without an index in use the file is read: a job looks at the few files of its own tasks.
    """
    return _in_use[-1].known(path, read) if _in_use else stored(path, read)
