"""A command typed again lists the same tasks without composing them, unless anything they follow from has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repro.pipeline import experiment, remembered
from repro.pipeline.config import CONF
from repro.pipeline.experiment import Experiment
from repro.pipeline.remembered import KEPT, experiment_of

SMOKE = ["experiment=smoke"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "repro"


@pytest.fixture
def composed(monkeypatch):
    """The overrides of the experiments that were composed."""
    made = []

    class Noted(Experiment):
        def __init__(self, overrides, conf):
            made.append(list(overrides))
            super().__init__(overrides, conf)

    monkeypatch.setattr(experiment, "Experiment", Noted)
    Noted.__qualname__ = "Experiment"  # by which pickle finds it
    Noted.__module__ = experiment.__name__
    return made


def test_the_tasks_are_the_same(composed):
    first, again = (experiment_of(SMOKE) for _ in range(2))
    assert composed == [SMOKE]
    assert again.stages() == first.stages() == Experiment(SMOKE).stages()
    assert (again.root, again.launch, again.axes) == (first.root, first.launch, first.axes)


def test_other_overrides_files_or_variables_are_composed(composed, tmp_path, monkeypatch):
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    experiment_of(SMOKE, conf)
    assert experiment_of([*SMOKE, "seed=1"], conf).axes["seed"] == ["1"]
    file = conf / "experiment" / "smoke.yaml"
    file.write_text(file.read_text().replace("n_per_class: 4,6", "n_per_class: 6"))
    assert experiment_of(SMOKE, conf).axes["n_per_class"] == ["6"]
    monkeypatch.setenv("REPRO_DATA", "/elsewhere")
    assert experiment_of(SMOKE, conf).config.data_root == "/elsewhere"
    assert len(composed) == 4


def test_other_code_composes(composed, monkeypatch, tmp_path):
    experiment_of(SMOKE)
    monkeypatch.setattr(remembered, "PACKAGE", tmp_path)
    (tmp_path / "module.py").write_text("changed")
    experiment_of(SMOKE)
    assert len(composed) == 2


def test_what_follows_from_a_module_of_a_user_is_composed_each_time(composed, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("from repro.models.mlp import MLP as build\n")
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        experiment_of([*SMOKE, "model=mlp", "model.build=mine:build"])
    assert len(composed) == 2


def test_a_damaged_one_is_composed_again(composed, cache, caplog):
    experiment_of(SMOKE)
    (path,) = cache.glob("*.experiment")
    path.write_bytes(path.read_bytes()[:-1])
    experiment_of(SMOKE)
    assert len(composed) == 2
    assert "is damaged" in caplog.text


def test_where_nothing_can_be_kept_it_is_composed(composed, cache):
    cache.write_text("a file where the folder should be")
    assert experiment_of(SMOKE).name == "smoke"


def test_old_ones_are_forgotten(cache):
    cache.mkdir(mode=0o700)
    for age in range(KEPT + 5):
        (cache / f"{age}.experiment").touch()
        os.utime(cache / f"{age}.experiment", (1000 - age, 1000 - age))
    experiment_of(SMOKE)
    left = {path.stem for path in cache.iterdir()}
    assert len(left) == KEPT
    assert {"0", f"{KEPT - 2}"} < left
    assert f"{KEPT - 1}" not in left


def test_status_then_loads_neither_torch_nor_hydra(tmp_path):
    code = (
        "import runpy, sys; sys.argv[0] = 'scripts/reproduce.py'; runpy.run_path(sys.argv[0], run_name='__main__');"
        "print([name for name in ('torch', 'hydra', 'matplotlib', 'pandas') if name in sys.modules])"
    )
    line = [sys.executable, "-c", code, "status", *SMOKE, f"outputs={tmp_path}"]
    said = [subprocess.run(line, cwd=CONF.parent, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert said[1].splitlines()[-1] == "[]"
    assert said[1].splitlines()[:-1] == said[0].splitlines()[:-1]
