"""One damaged file of any kind ends no command: it is set aside, and made again as it was."""

import errno
import functools
import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from stored_runs import outcomes, selected

from repro.figures import style
from repro.pipeline import tasks
from repro.pipeline.cost import Throughput
from repro.pipeline.experiment import Experiment
from repro.pipeline.launch import queue
from repro.pipeline.launch.attempts import begin, end
from repro.pipeline.launch.local import log_path
from repro.pipeline.launch.submissions import Submission, write_submitted
from repro.storage.runs import read_run

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "reproduce.py"
CELL = "fashion_mnist_embedded/mlp/n6"
KINDS = {
    "training": f"runs/{CELL}/lr001.json",
    "table of trainings": "runs.csv",
    "table of the selected": "selected.csv",
    "selected network": f"selected/{CELL}/run.json",
    "measurement": f"results/{CELL}/hessian_spectrum.npz",
    "digest of a figure": "figures/x01.json",
    "attempt": f"attempts/sweep/{CELL.replace('/', '_')}_lr0-2.json",
    "record of submissions": "attempts/submitted.json",
    "log": f"logs/sweep/{CELL.replace('/', '_')}_lr0-2.log",
}
DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "junk": lambda content: bytes(range(256)) * 3,
    "another type": lambda content: b"[]\n",
    "one byte": lambda content: content[: len(content) // 3] + b"\xff" + content[len(content) // 3 + 1 :],
    "another digit": lambda content: content[:-90] + bytes([content[-90] ^ 1]) + content[-89:],
}
COMPUTED = ("training", "selected network", "measurement")
READING = (("status",), ("plan",), ("status", "launch=slurm"), ("wait", "launch=slurm"), ("logs", "launch=slurm"))


class Here:
    """Workers that are this process."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, pending):
        for task in pending:
            tasks.run(task)


class Pictures:
    """Each figure is turned into its pictures once, which takes long, and they are written again from then on."""

    def __init__(self, save_figure):
        self.save_figure, self.made = save_figure, {}

    def __call__(self, figure, path):
        if path.name not in self.made:
            self.made[path.name] = {target: target.read_bytes() for target in self.save_figure(figure, path)}
        for target, content in self.made[path.name].items():
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content)


@pytest.fixture(scope="module")
def reproduce(tmp_path_factory):
    """scripts/reproduce.py on the smoke experiment, in this process; returns whether it went through."""
    spec = importlib.util.spec_from_file_location("reproduce", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    outputs = tmp_path_factory.mktemp("outputs")
    experiment = functools.cache(lambda *overrides: Experiment(overrides))
    throughput = Throughput(1e-3, 1e-4, 1e-4)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(SCRIPT.parent.parent)
        patched.setattr(script, "Workers", Here)
        patched.setattr(script, "experiment_of", lambda overrides: experiment(*overrides))
        patched.setattr("repro.pipeline.calibration.calibrate", lambda *_, **__: throughput)
        patched.setattr(style, "save_figure", Pictures(style.save_figure))
        patched.setattr(queue, "command", lambda *words: "")  # a cluster with an empty queue
        patched.setattr("time.sleep", lambda seconds: None)

        def run(command, *overrides):
            try:
                script.command(command, ["experiment=smoke", f"outputs={outputs}", *overrides], dry_run=False)
            except (SystemExit, ValueError, RuntimeError, OSError):  # which the script says in a sentence
                return False
            return True

        run.root = outputs / "smoke"
        yield run


@pytest.fixture(scope="module")
def whole(reproduce, tmp_path_factory):
    """A copy of the finished experiment, with a file of every kind."""
    assert reproduce("all")
    root = reproduce.root
    _, task = Experiment(["experiment=smoke", "launch=slurm", f"outputs={root.parent}"]).stages()["sweep"]
    end(task, begin(task, "7", log_path(task)), ValueError("it failed"))
    write_submitted(root, [Submission("sweep", [[task.name]], str(root / "slurm"), ["7"])])
    log_path(task).parent.mkdir(parents=True, exist_ok=True)
    log_path(task).write_text("what it said\n" * 10)
    return Path(shutil.copytree(root, tmp_path_factory.mktemp("whole") / "smoke"))


@pytest.fixture
def damaged(reproduce, whole):
    """The whole experiment again, but for one file; returns the file and what is in it."""

    def make(kind, damage):
        shutil.rmtree(reproduce.root)
        shutil.copytree(whole, reproduce.root)
        path = reproduce.root / KINDS[kind]
        content = DAMAGE[damage](path.read_bytes())
        path.write_bytes(content)
        return path, content

    return make


def test_the_experiment_is_whole(reproduce, whole):
    assert all((whole / path).is_file() for path in KINDS.values())
    assert all(reproduce(*command) for command in [*READING, ["figures"], ["report"]])
    assert not list(reproduce.root.rglob("*.damaged-*"))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_ends_no_command_and_is_made_good(reproduce, whole, damaged, kind, damage):
    for command in READING:
        damaged(kind, damage)
        assert reproduce(*command) or (command[0] == "wait" and kind in COMPUTED)  # which says: not all is done
    path, content = damaged(kind, damage)
    reproduce("figures")  # first, as select makes the tables anew whatever they are
    reproduce("select")
    assert reproduce("all")
    assert outcomes(reproduce.root) == outcomes(whole)
    assert selected(reproduce.root).equals(selected(whole))
    if kind in COMPUTED or "table" in kind:
        assert path.with_name(f"{path.name}.damaged-1").read_bytes() == content
        assert path.is_file()
    before = {path: path.stat().st_mtime_ns for path in reproduce.root.glob("r*/**/*.[jn]*")}
    assert reproduce("all")
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_found_by_who_measures_it(reproduce, damaged, damage):
    damaged("measurement", damage)
    (reproduce.root / KINDS["measurement"]).unlink()
    path = reproduce.root / f"selected/{CELL}/epoch0002.safetensors"
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))
    assert not reproduce("all")
    assert (path.with_name(f"{path.name}.damaged-1")).exists()
    assert reproduce("all")
    assert path.read_bytes() == whole


def test_a_changed_error_selects_no_other_rate(reproduce, whole, damaged):
    """Whatever the date of the file says."""
    damaged("log", "empty")
    path = reproduce.root / KINDS["training"]
    assert 1 not in selected(whole).lr_index.values
    date, error = path.stat(), read_run(path)["metrics"]["test_error"]
    path.write_text(path.read_text().replace(f"{error}", "0.001"))
    os.utime(path, ns=(date.st_atime_ns, date.st_mtime_ns))
    assert not reproduce("select")
    assert reproduce("all")
    assert selected(reproduce.root).equals(selected(whole))


def test_a_changed_table_is_not_drawn(reproduce, whole, damaged):
    damaged("log", "empty")
    path = reproduce.root / "runs.csv"
    path.write_text(path.read_text().replace("False", "True", 1))
    assert reproduce("figures")
    assert (reproduce.root / "figures/x01.csv").read_bytes() == (whole / "figures/x01.csv").read_bytes()
    assert selected(reproduce.root).equals(selected(whole))


@pytest.mark.parametrize("kind", KINDS)
def test_reading_commands_do_not_need_to_write(reproduce, damaged, monkeypatch, kind):
    """In a folder that may only be read, with a damaged file in it; root could write there."""

    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    damaged(kind, "cut")
    for name in ("rename", "mkdir", "touch", "unlink"):
        monkeypatch.setattr(Path, name, read_only)
    for name in ("replace", "mkdir", "rename"):
        monkeypatch.setattr(os, name, read_only)
    for command in READING:
        assert reproduce(*command) or (command[0] == "wait" and kind in COMPUTED)


def test_a_figure_that_lacks_a_result_keeps_no_other_from_being_drawn(reproduce, damaged):
    path, _ = damaged("measurement", "junk")
    drawn = [reproduce.root / "figures" / name for name in ("fig03.json", "x01.json")]
    for file in drawn:
        file.unlink()
    assert not reproduce("figures")
    assert [file.exists() for file in drawn] == [False, True]
    assert not path.exists()
