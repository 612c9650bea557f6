"""Logs from their end: they may be long."""

from __future__ import annotations

import os
from pathlib import Path

READ = 1 << 16  # bytes from the end; some hundred lines


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log, of what its last 64 KiB hold; what is no text is shown as such.

    A log that is not there, or closed to us, is a line that says so.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - READ))
            text = file.read(READ).decode(errors="replace")
    except FileNotFoundError:
        return ["(not there)"]
    except OSError as error:
        return [f"(cannot be read: {error.strerror})"]
    shown = text.splitlines()
    if size > READ and len(shown) > 1:
        del shown[0]  # it may be cut
    return shown[-lines:]
