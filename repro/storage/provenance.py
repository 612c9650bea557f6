"""What a result was computed with: versions, device, host, state of the code."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any


@functools.cache
def code_version() -> str:
    """The commit this package runs from, with '+' if files differ from it; 'unknown' outside a checkout."""
    here = Path(__file__).resolve().parent
    snapshot = here.parents[1] / "COMMIT"  # queued jobs run from a snapshot of the code, which is no checkout
    if snapshot.exists():
        return snapshot.read_text().strip()
    try:
        commit = _git(here, "rev-parse", "--short", "HEAD")
        changed = _git(here, "status", "--porcelain", "-uno")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def provenance(device: Any, seconds: float) -> dict[str, Any]:
    """Versions, device name, host and code of this process, and the seconds a result took."""
    import torch

    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return {
        "code": code_version(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torchvision", "numpy")},
        "device": name,
        "threads": torch.get_num_threads(),
        "host": platform.node(),
        "seconds": round(seconds, 3),
    }
