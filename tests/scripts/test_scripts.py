"""What the scripts do before and around the work."""

import subprocess
import sys
from pathlib import Path

import pytest

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
    assert "name=../x would be no folder below" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    assert list((tmp_path / "outputs").iterdir()) == []
