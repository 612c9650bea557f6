"""Submission without a cluster; tests/pipeline/slurm has a real one."""

import errno
import subprocess
import time

import pytest

from repro.pipeline.launch import sbatch, slurm
from repro.pipeline.launch.hints import Hints
from repro.pipeline.launch.queue import SlurmError
from repro.pipeline.launch.submissions import read_submitted

SCONTROL = "printf 'MaxArraySize = 1001\\nMaxJobCount = 10000\\n'"
HINTS = Hints(["experiment=toy", "launch=slurm"])


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Sets what SLURM's commands do, as lines of shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def cluster(**commands):
        for name, text in {"srun": ":", "squeue": ":", "scancel": ":", "scontrol": SCONTROL, **commands}.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)

    return cluster


def test_sbatch_that_hangs_is_given_up(stages, launch, cluster, tmp_path, monkeypatch):
    """The queue is full: sbatch sleeps and tries again."""
    cluster(sbatch="exec sleep 61")  # no other test sleeps as long
    monkeypatch.setattr(sbatch, "PATIENCE", 1)
    start = time.monotonic()
    with pytest.raises(SlurmError, match="sbatch of 5 jobs of stage sweep failed: no answer within 1 s"):
        slurm.submit(stages, tmp_path / "toy", launch, HINTS)
    assert time.monotonic() - start < 20
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "sleep 61" not in [line.strip() for line in processes.splitlines()]


def test_what_was_refused_was_not_submitted(stages, launch, cluster, tmp_path):
    """Nor is what an earlier submission recorded forgotten."""
    count = tmp_path / "count"
    cluster(sbatch=f"echo >> {count}; n=$(wc -l < {count}); echo Submitted batch job $n")
    slurm.submit({"report": stages["report"]}, tmp_path / "toy", launch, HINTS)
    assert read_submitted(tmp_path / "toy").jobs(stages["report"][0]) == ["1"]
    cluster(sbatch=f"echo >> {count}; n=$(wc -l < {count}); [ $n -lt 4 ] && echo Submitted batch job $n")
    with pytest.raises(SlurmError, match="of stage sweep failed"):
        slurm.submit(stages, tmp_path / "toy", launch, HINTS)
    record = read_submitted(tmp_path / "toy")
    assert record.jobs(stages["report"][0]) == ["1"]
    assert stages["sweep"][0] not in record


def test_a_full_disk_is_told_with_path_and_advice(stages, launch, cluster, tmp_path, monkeypatch):
    cluster(sbatch="echo Submitted batch job 1")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("submitit.core.utils.cloudpickle_dump", full)
    with pytest.raises(OSError, match=r"cannot write .*/toy/slurm: No space left on device; make room"):
        slurm.submit(stages, tmp_path / "toy", launch, HINTS)


def test_passes_over_a_stage_are_one_record(stages, launch, cluster, tmp_path):
    count = tmp_path / "count"
    cluster(sbatch=f"echo >> {count}; n=$(wc -l < {count}); echo Submitted batch job $n")
    slurm.submit(stages, tmp_path / "toy", launch, HINTS)
    record = read_submitted(tmp_path / "toy")
    assert record.jobs(stages["sweep"][2]) == ["1_2", "2_2", "3_2"]
    assert record.jobs(stages["select"][0]) == ["4"]
    assert record.jobs(stages["measure"][0]) == ["8", "9", "10"]


@pytest.mark.parametrize(
    "reason",
    [
        "QOSMaxSubmitJobPerUserLimit",
        "AssocMaxSubmitJobLimit",
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
    ],
)
def test_limits_of_the_user_have_advice(stages, launch, cluster, tmp_path, reason):
    cluster(sbatch=f'echo "sbatch: error: {reason}" >&2; exit 1')
    with pytest.raises(SlurmError, match=r"raise launch.petaflop_per_task or .*tasks_per_job, lower launch.retries"):
        slurm.submit(stages, tmp_path / "toy", launch, HINTS)


def test_jobs_in_the_queue_are_named_with_commands_to_paste(stages, launch, cluster, tmp_path):
    note = slurm.queue.comment(tmp_path / "toy", "sweep")
    cluster(squeue=f'echo "12|3|15|RUNNING|None|{note}"')
    with pytest.raises(SlurmError, match="12_3 is RUNNING; `make wait EXPERIMENT=toy LAUNCH=slurm` attaches to them"):
        slurm.submit(stages, tmp_path / "toy", launch, HINTS)
