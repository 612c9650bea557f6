"""What the scripts do before and around the work."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import preloaded
import pytest

from repro.pipeline.launch.queue import NoClusterError, comment
from repro.pipeline.launch.submissions import Submission, write_submitted
from repro.storage.layout import claim_folder
from repro.storage.results import Cell, result_path, save_result
from repro.storage.runs import write_table

ROOT = Path(__file__).resolve().parents[2]


MEASURE = "-m repro measure"


def script(name, *words, cwd=ROOT):
    return preloaded.run(name if name == MEASURE else f"scripts/{name}", *words, cwd=cwd)


@pytest.mark.parametrize("name", ["train.py", "retrain.py", MEASURE, "reproduce.py"])
def test_plugins_of_the_working_directory_are_not_run(tmp_path, name):
    """The working directory may be anyone's."""
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "evil.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()"
    )
    words = ["status"] if name == "reproduce.py" else []
    script(name, *words, "experiment=smoke", f"outputs={tmp_path / 'outputs'}", "data=nonsense", cwd=tmp_path)
    script(name, *words, "experiment=smoke", f"outputs={tmp_path / 'outputs'}", "--cfg=job", cwd=tmp_path)
    assert not (tmp_path / "hydra_plugins" / "ran").exists()


@pytest.mark.parametrize("name", ["train.py", "retrain.py", MEASURE])
def test_no_name_leaves_outputs(tmp_path, name):
    (tmp_path / "outputs").mkdir()
    done = script(
        name, "experiment=smoke", f"outputs={tmp_path / 'outputs'}", "name=../x", "n_per_class=4", "lr_index=0"
    )
    assert done.returncode == 1
    assert "name=../x: an experiment is called as its folder in" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    assert list((tmp_path / "outputs").iterdir()) == []


def test_a_run_beside_jobs_of_the_same_experiment_is_warned_of(tmp_path, monkeypatch):
    root = tmp_path / "outputs" / "smoke"
    write_submitted(root, [Submission("sweep", [["data/net/n4/lr0"]], str(tmp_path), ["12"])])
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f'#!/bin/sh\necho "12|N/A|12|RUNNING|None|{comment(root, "sweep")}"\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(squeue.parent), prepend=":")
    words = ["sweep", "experiment=smoke", f"outputs={tmp_path / 'outputs'}", "n_per_class=4", "lr_index=0"]
    done = script("reproduce.py", *words)
    assert done.returncode == 0
    assert "caution: 1 jobs of this experiment are in the queue" in done.stderr
    assert f"`make wait EXPERIMENT=smoke LAUNCH=slurm ARGS='outputs={tmp_path}/outputs n_per_class=4" in done.stderr
    squeue.write_text("#!/bin/sh\nexit 1\n")  # what does not answer does not stand in the way
    assert "caution" not in script("reproduce.py", *words).stderr


@pytest.fixture(scope="module")
def reproduce():
    """The module of scripts/reproduce.py."""
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "scripts" / "reproduce.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["select", "figures", "report", "gallery", "show"])
def test_what_shows_results_says_that_there_are_none(reproduce, tmp_path, name):
    expected = r"nothing is trained or measured in .*/smoke yet; run `make reproduce EXPERIMENT=smoke .*` first"
    with pytest.raises(ValueError, match=expected):
        reproduce.command(name, ["experiment=smoke", f"outputs={tmp_path}"], dry_run=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["wait", "logs", "retry", "cancel"])
def test_without_slurm_there_are_no_jobs_to_look_after(reproduce, tmp_path, monkeypatch, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoClusterError, match="squeue is not found: this is no SLURM cluster"):
        reproduce.command(name, ["experiment=smoke", "launch=slurm", f"outputs={tmp_path}"], dry_run=False)


def test_measuring_what_was_not_swept_says_what_to_do(tmp_path):
    done = script(MEASURE, "experiment=smoke", "n_per_class=4", f"outputs={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the sweep is not finished: fashion_mnist_embedded/mlp/n4 lacks 3 of 3")
    assert "Traceback" not in done.stderr


def experiment_with_a_spectrum(root):
    claim_folder(root, root.name)
    cell = Cell("fashion_mnist_embedded", "mlp", 6)
    arrays = {"train_hessian_eigenvalues": np.array([9.0, 7.0])}
    save_result(result_path(root, "hessian_spectrum", cell), arrays, {"seconds": 2.0, "products": 40})
    row = {**cell._asdict(), "lr_index": 1, "lr": 0.05, "epochs": 2, "test_error": 0.25, "seconds": 3.0}
    for name in ("runs.csv", "selected.csv"):
        write_table(root / name, [row])


def test_show_and_compare_say_what_is_stored_and_leave_it_as_csv(reproduce, tmp_path, capsys):
    for name in ("smoke", "other"):
        experiment_with_a_spectrum(tmp_path / name)
    reproduce.command("show", ["experiment=smoke", f"outputs={tmp_path}"], dry_run=False)
    shown = capsys.readouterr().out
    assert "hessian_spectrum" in shown
    assert pd.read_csv(tmp_path / "smoke" / "tables" / "show-measurements.csv").products.tolist() == [40]
    reproduce.command("show", ["experiment=smoke", f"outputs={tmp_path}", "n_per_class=4"], dry_run=False)
    assert "hessian_spectrum" not in capsys.readouterr().out
    reproduce.command("compare", ["smoke", "other", f"outputs={tmp_path}"], dry_run=False)
    assert "eigenvalue other" in capsys.readouterr().out
    beside = pd.read_csv(tmp_path / "smoke" / "tables" / "beside-other-outliers.csv")
    assert beside["eigenvalue smoke"].tolist() == beside["eigenvalue other"].tolist() == [9.0, 7.0]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["smoke"], "takes the names of two experiments"),
        (["smoke", "othr"], "no experiment othr in .*; there are smoke"),
    ],
)
def test_what_cannot_be_compared_gets_a_sentence(reproduce, tmp_path, names, sentence):
    claim_folder(tmp_path / "smoke", "smoke")
    with pytest.raises(ValueError, match=sentence):
        reproduce.command("compare", [*names, f"outputs={tmp_path}"], dry_run=False)
