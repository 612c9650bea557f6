"""The one-node cluster runs as root: it trusts no folder that someone else could have put there."""

import os
import subprocess
from pathlib import Path

import pytest

NODE = Path(__file__).resolve().parents[2] / "scripts" / "slurm_node.sh"


def refused(folder, sentence, command="up"):
    done = subprocess.run(
        [NODE, command], env=os.environ | {"SLURM_NODE_DIR": str(folder)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_a_link_is_not_followed(tmp_path, command):
    target = tmp_path / "target"
    target.mkdir()
    (target / "slurm.conf").write_text("mine")
    (tmp_path / "node").symlink_to(target)
    refused(tmp_path / "node", "is no folder of yours, or a link", command)
    refused(tmp_path / "node/", "is no folder of yours, or a link", command)
    assert (target / "slurm.conf").read_text() == "mine"
    assert len(list(target.iterdir())) == 1


def test_a_dangling_link_is_not_followed(tmp_path):
    (tmp_path / "node").symlink_to(tmp_path / "target")
    refused(tmp_path / "node", "is no folder of yours, or a link")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("command", ["up", "down"])
def test_what_it_did_not_make_is_neither_used_nor_removed(tmp_path, command):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    refused(tmp_path / "home", "holds something else", command)
    assert (tmp_path / "home" / "thesis.tex").exists()


def test_folders_that_others_may_write_to_are_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    refused(tmp_path / "open" / "node", f"others may write to {tmp_path / 'open'}")
    refused(tmp_path / "open", "others may write to")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_folders_of_others_are_refused(tmp_path):
    for name in ("node", "home"):
        (tmp_path / name).mkdir(0o755)
        os.chown(tmp_path / name, 12345, 12345)
    refused(tmp_path / "node", "is no folder of yours")
    refused(tmp_path / "home" / "node", "home is another user's")


def test_names_that_slurm_does_not_take(tmp_path):
    refused(tmp_path / "a b", "SLURM does not take the name")
    refused(tmp_path / "not there" / "node", "make it first")
