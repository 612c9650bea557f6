"""What an experiment has stored, to be compared with another computation of the same."""

from pathlib import Path
from typing import Any

import pandas as pd

from repro.storage.runs import read_run, read_table


def outcomes(root: Path) -> dict[str, Any]:
    """What each training came to, without what differs between two computations of it."""
    stored = {str(path.relative_to(root)): read_run(path) for path in root.glob("runs/**/*.json")}
    return {path: (run["digest"], run["metrics"], run["history"]) for path, run in stored.items()}


def selected(root: Path) -> pd.DataFrame:
    """The selected runs, without the time they took."""
    return read_table(root / "selected.csv").drop(columns="seconds")
