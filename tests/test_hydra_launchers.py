"""The scripts are plain Hydra applications: a multirun over any axis works with every local launcher."""

import preloaded
import pytest


def multirun(outputs, *overrides):
    return preloaded.run("scripts/train.py", "-m", "experiment=smoke", f"outputs={outputs}", *overrides)


def stored(outputs):
    return {
        str(path.relative_to(outputs / "smoke/runs")): path.stat().st_mtime_ns for path in outputs.rglob("lr*.json")
    }


GRID = {f"fashion_mnist_embedded/mlp/n{n}/lr00{i}.json" for n in (4, 6) for i in range(3)}


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        (["hydra/launcher=basic"], GRID),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], GRID),
        # a process for each training: two of them
        (
            ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5", "lr_index=1"],
            {path for path in GRID if path.endswith("lr001.json")},
        ),
    ],
    ids=["basic", "joblib", "submitit_local"],
)
def test_every_launcher_trains_the_grid_once(launcher, expected, tmp_path):
    done = multirun(tmp_path, *launcher)
    assert done.returncode == 0, done.stderr
    found = stored(tmp_path)
    assert set(found) == expected
    assert multirun(tmp_path, *launcher).returncode == 0
    assert stored(tmp_path) == found


def test_an_axis_from_the_command_line(tmp_path):
    assert multirun(tmp_path, "n_per_class=4", "lr_index=1,2").returncode == 0
    assert set(stored(tmp_path)) == {f"fashion_mnist_embedded/mlp/n4/lr00{i}.json" for i in (1, 2)}
