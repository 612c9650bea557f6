"""The tutorial runs as it stands, the documentation builds without a warning, and what it names is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def test_the_tutorial_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/tutorial.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 8
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/tutorial.md", "exec"), names)
    written = {path.name for path in tmp_path.iterdir()}
    assert {"hessian_and_its_parts.png", "knockouts.png", "features.png", "spectrum.npz"} <= written


def test_the_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    page = (tmp_path / "concepts/class-structure.html").read_text()
    assert "<math" in page
    assert "$" not in re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)  # every formula was understood


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_modules_that_a_page_names_are_there(page):
    for name in re.findall(r"`((?:repro|conf|scripts|docs)[/.][\w/.]*\w/?)`", page.read_text()):
        path = ROOT / name
        module = ROOT / name.replace(".", "/")
        assert path.exists() or any(p.with_suffix(".py").exists() or p.is_dir() for p in (module, module.parent)), name
