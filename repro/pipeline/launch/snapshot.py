"""The package as it is now, kept for the jobs that will run it later."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import repro
from repro.pipeline.launch.start import digest_of
from repro.storage.provenance import code_version

PACKAGE = Path(repro.__file__).resolve().parent


def snapshot(folder: Path) -> Path:
    """Copy the package below `folder`; returns the copy, whose name is the digest of its content.

    A copy of the same content is replaced: it may have become incomplete, and a cleaner of old files, which goes by
    dates, is kept from coming between now and the start of the jobs. The caller sees to it that no jobs use it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for abandoned in folder.glob(".*.tmp"):  # by one who was killed: only one process at a time submits an experiment
        shutil.rmtree(abandoned)
    fresh = folder / f".{os.getpid()}.tmp"
    shutil.copytree(
        PACKAGE,
        fresh / PACKAGE.name,
        ignore=shutil.ignore_patterns("__pycache__", "conf"),  # jobs have their tasks and compose nothing
        copy_function=shutil.copyfile,  # without its date
        ignore_dangling_symlinks=True,  # the locks of editors
    )
    (fresh / "COMMIT").write_text(code_version() + "\n")  # read by repro.storage.provenance
    target = folder / digest_of(fresh)
    if target.exists():
        shutil.rmtree(target)
    fresh.rename(target)
    return target
