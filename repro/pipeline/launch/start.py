"""How a job begins: prove the copy of the package that it was submitted with, then import that copy and no other.

The text of this file is a part of every job script, which SLURM keeps, so that it is there whatever has become of the
copy. For that reason it imports the standard library alone.

    python -P -u -c <this text> <folder of the copy> <digest> <umask> -u -m submitit.core._submit <folder of the job>

`-P` keeps the folder that the job runs in, which may be a checkout, out of what Python imports from.
"""

from __future__ import annotations

import hashlib
import os
import runpy
import stat
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

PACKAGE = "repro"


def digest_of(folder: Path) -> str:
    """16 hexadecimal digits over the names and contents of all files below a folder, without Python's bytecode."""
    content = hashlib.sha256()
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for name in (name for name in names if "__pycache__" not in name.parts):
        content.update(f"{name.as_posix()!r} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return content.hexdigest()[:16]


class OnlyFrom:
    """Finds the package in one folder alone: a module that is missing there is missing, wherever else it may be."""

    def __init__(self, folder: Path):
        self._folder = folder

    def find_spec(self, name: str, path: list[str] | None = None, target: object = None) -> ModuleSpec | None:
        """Of modules of the package where they are, of others None; called by Python at every import."""
        if name.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(name, [str(self._folder)] if path is None else path)
        if spec is None:
            raise ModuleNotFoundError(f"{name} is not in {self._folder}, the code that this job was submitted with")
        return spec


def refusal(code: Path, digest: str, job: Path) -> str | None:
    """Why a job must not begin, in a sentence; None if it may."""
    if loaded := sys.modules.get(PACKAGE):
        return f"{loaded.__file__} was imported before the job began, instead of {code}; look at PYTHONPATH"
    if _digest_or_none(code) != digest:
        return f"{code}, the code of this job, is not what was submitted (a cleaner of old files?); submit again"
    owned = job.stat()
    if owned.st_uid != os.getuid() or owned.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write what this job would run as you from {job}; remove that folder and submit again"
    return None


def _digest_or_none(code: Path) -> str | None:
    try:
        return digest_of(code)
    except OSError:  # it is being removed at this moment, or closed to us
        return None


def main() -> None:
    """Check, then hand over to submitit, which is given as `-u -m <module> <folder>`."""
    code, digest, umask, _, _, module, job = sys.argv[1:]
    if reason := refusal(Path(code), digest, Path(job)):
        sys.exit(f"error: {reason}")
    os.umask(int(umask, 8))  # of who submitted: the job script was written under a stricter one
    sys.meta_path.insert(0, OnlyFrom(Path(code)))  # type: ignore[arg-type]
    sys.argv = [module, job]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
