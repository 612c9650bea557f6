"""The scripts are plain Hydra applications: a multirun over any axis works with every local launcher."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def multirun(outputs, *overrides):
    line = [sys.executable, "scripts/train.py", "-m", "experiment=smoke", f"outputs={outputs}", *overrides]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


def stored(outputs):
    return {
        str(path.relative_to(outputs / "smoke/runs")): path.stat().st_mtime_ns for path in outputs.rglob("lr*.json")
    }


@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=basic"],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
    ],
    ids=lambda words: words[0].partition("=")[2],
)
def test_every_launcher_trains_the_grid_once(launcher, tmp_path):
    done = multirun(tmp_path, *launcher)
    assert done.returncode == 0, done.stderr
    found = stored(tmp_path)
    expected = {f"fashion_mnist_embedded/mlp/n{n}/lr00{i}.json" for n in (4, 6) for i in range(3)}
    assert set(found) == expected
    assert multirun(tmp_path, *launcher).returncode == 0
    assert stored(tmp_path) == found


def test_an_axis_from_the_command_line(tmp_path):
    assert multirun(tmp_path, "n_per_class=4", "lr_index=1,2").returncode == 0
    assert set(stored(tmp_path)) == {f"fashion_mnist_embedded/mlp/n4/lr00{i}.json" for i in (1, 2)}
