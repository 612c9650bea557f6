"""The package as it is now, kept for the jobs that will run it later."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import repro
from repro.storage.provenance import code_version

PACKAGE = Path(repro.__file__).resolve().parent


def snapshot(folder: Path) -> Path:
    """Copy the package below `folder`, once for each content; returns what goes on PYTHONPATH."""
    files = sorted(path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    content = hashlib.sha256(code_version().encode())
    for path in files:
        content.update(f"{path.relative_to(PACKAGE)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    target = folder / content.hexdigest()[:16]
    if target.exists():
        return target
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    for path in files:
        copy = unfinished / PACKAGE.name / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    (unfinished / "COMMIT").write_text(code_version() + "\n")  # read by repro.storage.provenance
    unfinished.rename(target)
    return target
