"""The pipeline end to end on a toy experiment: what is finished is never computed again, whatever happens."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import preloaded
import pytest
from stored_runs import outcomes, selected

from repro.pipeline import tasks
from repro.pipeline.experiment import Experiment
from repro.storage.runs import read_table

ROOT = Path(__file__).resolve().parent.parent


def reproduce(command, outputs, *overrides, check=True):
    """Run scripts/reproduce.py on the smoke experiment below `outputs`, with one worker if nothing else is said."""
    given = ["experiment=smoke", f"outputs={outputs}", "launch.workers=1", *overrides]
    done = preloaded.run("scripts/reproduce.py", command, *given)
    assert not check or done.returncode == 0, done.stderr
    return done


def times(root):
    """Modification times of everything that is computed once."""
    kept = [*root.glob("runs/**/*.json"), *root.glob("selected/**/*"), *root.glob("results/**/*.npz")]
    return {path: path.stat().st_mtime_ns for path in kept if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An undisturbed smoke experiment, by as many workers as there are cores."""
    outputs = tmp_path_factory.mktemp("undisturbed")
    done = reproduce("all", outputs, "launch.workers=auto")
    return outputs / "smoke", done.stdout


def test_everything_is_there_and_said_where(finished):
    root, said = finished
    stages = Experiment(["experiment=smoke", f"outputs={root.parent}"]).stages()
    assert all(tasks.finished(task) for stage in ("sweep", "retrain", "measure") for task in stages[stage])
    for figure in ("fig03", "x01"):
        assert (root / "figures" / f"{figure}.pdf").read_bytes().startswith(b"%PDF")
        assert (root / "figures" / f"{figure}.png").stat().st_size > 5000
    assert (root / "report" / "index.html").exists()
    assert str(root) in said
    assert not list(root.rglob("*.tmp"))


def test_selection_is_the_best_of_the_runs_and_retraining_gives_it_again(finished):
    root, _ = finished
    best = selected(root)
    table = read_table(root / "runs.csv")
    assert len(table) == 6
    for row in best.itertuples():
        assert row.test_error == table[table.n_per_class == row.n_per_class].test_error.min()
    record = json.loads((root / "selected/fashion_mnist_embedded/mlp/n6/run.json").read_text())
    assert record["retrained_test_error"] == record["sweep_test_error"]
    assert record["within_tolerance"]


def test_a_second_run_computes_nothing(finished):
    root, _ = finished
    before = times(root)
    reproduce("all", root.parent)
    assert times(root) == before


def test_one_figure_computes_only_what_it_lacks(finished, tmp_path):
    root, _ = finished
    shutil.copytree(root, tmp_path / "smoke")
    reproduce("fig3", tmp_path)
    before = times(tmp_path / "smoke")
    (tmp_path / "smoke/results/fashion_mnist_embedded/mlp/n6/hessian_spectrum.npz").unlink()
    reproduce("fig3", tmp_path)
    changed = [path.name for path, stamp in times(tmp_path / "smoke").items() if before.get(path) != stamp]
    assert changed == ["hessian_spectrum.npz"]


def test_an_empty_folder_to_one_figure_trains_only_its_cell(tmp_path):
    reproduce("fig3", tmp_path)
    assert {path.parent.name for path in (tmp_path / "smoke/runs").rglob("*.json")} == {"n6"}
    assert (tmp_path / "smoke/figures/fig03.png").exists()


def test_changed_settings_are_refused_for_runs_and_measured_again(finished, tmp_path):
    root, _ = finished
    shutil.copytree(root, tmp_path / "smoke")
    refused = reproduce("sweep", tmp_path, "training.momentum=0.5", check=False)
    assert refused.returncode != 0
    assert "training.momentum = 0.9, asked for 0.5" in refused.stderr
    assert "Traceback" not in refused.stderr
    before = times(tmp_path / "smoke")
    reproduce("measure", tmp_path, "measurements.hessian_spectrum.steps=14")
    changed = [path.name for path, stamp in times(tmp_path / "smoke").items() if before.get(path) != stamp]
    assert changed == ["hessian_spectrum.npz"]


def test_a_missing_run_stops_the_selection_and_can_be_tolerated(finished, tmp_path):
    root, _ = finished
    shutil.copytree(root, tmp_path / "smoke")
    (tmp_path / "smoke/runs/fashion_mnist_embedded/mlp/n6/lr001.json").unlink()
    refused = reproduce("select", tmp_path, check=False)
    assert "fashion_mnist_embedded/mlp/n6 lacks 1 of 3 learning rates (1)" in refused.stderr
    before = times(tmp_path / "smoke")
    for command in ("select", "fig3"):
        reproduce(command, tmp_path, "missing_allowed=1")
        assert len(read_table(tmp_path / "smoke/runs.csv")) == 5
    assert times(tmp_path / "smoke") == before


def test_selecting_in_a_part_of_the_grid_keeps_the_other_cells(finished, tmp_path):
    root, _ = finished
    shutil.copytree(root, tmp_path / "smoke")
    reproduce("select", tmp_path, "n_per_class=6")
    for name in ("runs.csv", "selected.csv"):
        part, whole = (read_table(folder / name) for folder in (tmp_path / "smoke", root))
        pd.testing.assert_frame_equal(part, whole, check_like=True)


def test_a_run_of_other_settings_is_not_trained_again_in_the_name_of_the_stored_one(finished, tmp_path):
    root, _ = finished
    shutil.copytree(root, tmp_path / "smoke")
    before = times(tmp_path / "smoke")
    refused = reproduce("retrain", tmp_path, "training.momentum=0.5", check=False)
    assert "training.momentum = 0.9, asked for 0.5" in refused.stderr
    assert times(tmp_path / "smoke") == before


def test_a_truncated_checkpoint_is_named(finished, tmp_path):
    root, _ = finished
    shutil.copytree(root, tmp_path / "smoke")
    weights = max((tmp_path / "smoke/selected/fashion_mnist_embedded/mlp/n6").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "smoke/results/fashion_mnist_embedded/mlp/n6/hessian_spectrum.npz").unlink()
    failed = reproduce("measure", tmp_path, check=False)
    assert weights.name in failed.stderr
    assert "log:" in failed.stderr


def test_two_drivers_on_the_same_outputs(finished, tmp_path):
    root, _ = finished
    line = [sys.executable, "scripts/reproduce.py", "all", "experiment=smoke", f"outputs={tmp_path}"]
    drivers = [subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [driver.wait() for driver in drivers] == [0, 0]
    assert outcomes(tmp_path / "smoke") == outcomes(root)
    pd.testing.assert_frame_equal(selected(tmp_path / "smoke"), selected(root))
