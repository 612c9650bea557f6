"""What the scripts do before and around the work."""

import subprocess
import sys
from pathlib import Path

import pytest

from repro.pipeline.launch.queue import comment
from repro.pipeline.launch.submissions import Submission, write_submitted

ROOT = Path(__file__).resolve().parents[2]


def script(name, *words, cwd=ROOT):
    return subprocess.run([sys.executable, ROOT / "scripts" / name, *words], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["train.py", "retrain.py", "measure.py", "reproduce.py"])
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


@pytest.mark.parametrize("name", ["train.py", "retrain.py", "measure.py"])
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
