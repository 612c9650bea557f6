"""Imports go one way: read from the source of every module, so that a lazy import counts too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "repro").rglob("*.py"))

# What a part of the package may import of ours; a part is a folder or a module of repro/.
NOTHING: set[str] = set()
MAY_IMPORT = {
    "files": NOTHING,
    "grid": NOTHING,
    "blocks": NOTHING,
    "provenance": NOTHING,
    "linalg": {"linalg"},
    "curvature": {"curvature", "linalg"},
    "data": {"data", "files"},
    "models": {"models"},
    "training": {"training", "files"},
    "store": {"files"},
    "runs": {"files", "store"},
    "selection": {"store"},
    "trained": {"data", "files", "models", "runs", "store"},
    "measurements": {"measurements", "curvature", "linalg", "trained"},
    "figures": {"figures", "files", "store", "linalg"},
    "report": {"report", "figures", "files", "store", "linalg"},
}


def imports_of(path: Path) -> set[str]:
    """Dotted names that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; write the whole name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    part = path.relative_to(ROOT / "repro").parts[0].removesuffix(".py")
    ours = {part_of(name) for name in imports_of(path) if name.startswith("repro.")}
    if part in MAY_IMPORT:
        assert ours <= MAY_IMPORT[part], f"{path.name} of {part} imports {ours - MAY_IMPORT[part]}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_hydra_stays_in_experiment(path):
    uses_hydra = any(name.split(".")[0] in {"hydra", "omegaconf"} for name in imports_of(path))
    assert not uses_hydra or path.name == "experiment.py"


def test_planning_and_drawing_never_load_torch():
    modules = [p.relative_to(ROOT).with_suffix("") for p in MODULES if "figures" in p.parts]
    names = [".".join(p.parts).removesuffix(".__init__") for p in modules]
    code = f"import sys, repro.experiment, repro.tasks, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
