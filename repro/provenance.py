"""What a result was computed with: versions, device, host, state of the code."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any


@functools.cache
def _code() -> str:
    """The commit this package runs from, with '+' if files differ from it; 'unknown' outside a checkout."""
    here = Path(__file__).resolve().parent
    snapshot = here.parent / "COMMIT"  # queued jobs run from a snapshot of the code, which is no checkout
    if snapshot.exists():
        return snapshot.read_text().strip()
    try:
        git, quiet = ["git", "-C", str(here)], {"capture_output": True, "text": True, "timeout": 10}
        commit = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changed.strip() else "")


def provenance(device: Any, seconds: float) -> dict[str, Any]:
    """Versions, device name, host and code of this process, and the seconds a result took."""
    import torch

    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return {
        "code": _code(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torchvision", "numpy")},
        "device": name,
        "threads": torch.get_num_threads(),
        "host": platform.node(),
        "seconds": round(seconds, 3),
    }
