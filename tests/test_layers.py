"""Imports go one way: read from the source of every module, so that a lazy import counts too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "repro").rglob("*.py"))

# What a part of the package may import of ours, besides itself; a part is a folder or a module of repro/.
MAY_IMPORT: dict[str, set[str]] = {
    "spectra": set(),
    "storage": {"spectra"},
    "linalg": {"spectra"},
    "curvature": {"linalg", "spectra"},
    "data": set(),
    "models": set(),
    "training": {"storage"},
    "network": {"curvature", "data", "storage"},
    "watch": {"linalg", "storage"},
    "measurements": {"curvature", "linalg", "network", "spectra", "watch"},
    "matrix": {"curvature", "linalg", "measurements", "network"},
    "figures": {"spectra", "storage"},
    "report": {"figures", "spectra", "storage"},
    "pipeline": {"data", "figures", "measurements", "models", "network", "report", "storage", "training", "watch"},
    "tracker": {"curvature", "figures", "linalg", "matrix", "measurements", "network"},
    "api": {"curvature", "figures", "measurements", "network", "spectra", "storage", "watch"},
    "__main__": {"pipeline"},
    "__init__": {"api", "matrix", "network", "tracker"},
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


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    part = path.relative_to(ROOT / "repro").parts[0].removesuffix(".py")
    assert part in MAY_IMPORT, f"{part} is a new part of the package: say above what it may import"
    ours = {name.split(".")[1] for name in imports_of(path) if name.startswith("repro.")} - {part}
    assert ours <= MAY_IMPORT[part], f"{path.name} of {part} imports {ours - MAY_IMPORT[part]}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_hydra_stays_in_one_module(path):
    uses_hydra = any(name.split(".")[0] in {"hydra", "omegaconf"} for name in imports_of(path))
    assert not uses_hydra or path.name == "composition.py"


def test_drawing_never_loads_torch():
    light = {"figures", "report", "spectra", "storage"}
    modules = [m for m in (p.relative_to(ROOT).with_suffix("") for p in MODULES) if light & set(m.parts)]
    names = [".".join(p.parts).removesuffix(".__init__") for p in modules]
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
