"""How jobs ended, and the setting that helps."""

import pytest
from launching import changed

from repro.pipeline.launch import fates as module
from repro.pipeline.launch.fates import advice, fates
from repro.pipeline.launch.queue import SlurmError

SACCT = """\
12_0|COMPLETED|0:0
12_0.batch|COMPLETED|0:0
12_1|FAILED|9:0
12_1.batch|FAILED|9:0
12_1.0|OUT_OF_MEMORY|0:125
12_2|OUT_OF_ME+|0:125
12_3|FAILED|3:0
12_3.batch|FAILED|3:0
12_4|FAILED|0:9
12_4.batch|CANCELLED|0:9
12_[5,7-8%2]|CANCELLED by 1000|0:0
13|TIMEOUT|0:0
13.batch|CANCELLED|0:15
"""


@pytest.fixture
def sacct(monkeypatch):
    asked = []

    def command(*words):
        asked.append(words)
        return SACCT

    monkeypatch.setattr(module, "command", command)
    return asked


def test_the_telling_state_of_a_job_and_its_steps(sacct):
    found = fates([*(f"12_{i}" for i in range(10)), "13", "14"])
    assert found == {
        "12_0": "COMPLETED",
        "12_1": "OUT_OF_MEMORY",
        "12_2": "OUT_OF_MEMORY",
        "12_3": "FAILED with exit code 3",
        "12_4": "FAILED by signal 9",
        "12_5": "CANCELLED",
        "12_7": "CANCELLED",
        "12_8": "CANCELLED",
        "13": "TIMEOUT",
    }
    assert sacct[0][-2:] == ("-j", "12,13,14")
    assert "-X" not in sacct[0]  # would leave out the steps


def test_accounting_is_not_asked_for_nothing_and_may_be_missing(sacct, monkeypatch):
    assert fates([]) == {}
    assert sacct == []

    def fail(*words):
        raise SlurmError("no accounting")

    monkeypatch.setattr(module, "command", fail)
    assert fates(["12_0"]) == {}


def test_advice_names_the_setting_and_its_value(launch, tmp_path):
    launch = changed(launch, measure={"mem": "7GB", "time": 11})
    assert (
        advice("OUT_OF_MEMORY", None, "measure", launch) == "OUT_OF_MEMORY, raise launch.stages.measure.mem (now 7GB)"
    )
    assert "launch.stages.measure.time (now 11 minutes)" in advice("TIMEOUT", None, "measure", launch)
    assert advice("NODE_FAIL", None, "measure", launch) == "NODE_FAIL"
    assert advice(None, None, "measure", launch) == "accounting does not say how"


@pytest.mark.parametrize(
    ("line", "memory"),
    [
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=12.batch. Some of the step tasks have",
            1,
        ),
        ("slurmstepd-vm: error: StepId=118.batch exceeded memory limit (413032448 > 52428800), being killed", 1),
        ("slurmstepd: error: Exceeded job memory limit", 1),
        ("torch.OutOfMemoryError: CUDA out of memory", 0),  # another memory
    ],
)
def test_a_log_may_know_what_accounting_does_not(launch, tmp_path, line, memory):
    log = tmp_path / "12_0_log.out"
    log.write_text(f"begin\n{line}\n")
    assert ("OUT_OF_MEMORY" in advice("FAILED by signal 9", log, "sweep", launch)) == bool(memory)
