"""What a result says about where it comes from."""

import subprocess

import pytest
import torch

from repro.storage import provenance


@pytest.fixture(autouse=True)
def forget():
    provenance.code_version.cache_clear()
    yield
    provenance.code_version.cache_clear()


def test_versions_device_and_seconds():
    made = provenance.provenance("cpu", 1.23456)
    assert torch.__version__.startswith(made["torch"])
    assert made["threads"] == torch.get_num_threads()
    assert made["device"].endswith("CPU")
    assert made["seconds"] == 1.235


@pytest.mark.parametrize(("changed", "version"), [("", "abc1234"), (" M repro/api.py", "abc1234+")])
def test_the_code_is_a_commit_with_a_mark_if_files_differ(monkeypatch, changed, version):
    monkeypatch.setattr(provenance, "_git", lambda folder, word, *rest: "abc1234" if word == "rev-parse" else changed)
    assert provenance.code_version() == version


def test_outside_a_checkout_the_code_is_unknown(monkeypatch):
    def no_git(*_):
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(provenance, "_git", no_git)
    assert provenance.code_version() == "unknown"


def test_a_snapshot_says_its_commit(tmp_path, monkeypatch):
    (tmp_path / "COMMIT").write_text("abc1234+\n")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "repro" / "storage" / "provenance.py"))
    assert provenance.code_version() == "abc1234+"
