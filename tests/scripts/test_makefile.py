"""What `make` does with what is typed."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def make(*words):
    return subprocess.run(["make", "-n", "-o", ".venv/installed", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("experiment=paper", "EXPERIMENT"),
        ("ARG=x=1", "ARGS"),
        ("LAUNCHER=slurm", "LAUNCH"),
        ("x=1", "EXPERIMENT LAUNCH"),
    ],
)
def test_a_variable_that_does_not_exist_is_refused(word, near):
    done = make("sweep", word)
    assert done.returncode != 0
    assert not done.stdout
    assert f"there is no variable {word.partition('=')[0]} here; did you mean {near}" in done.stderr


def test_two_experiments_are_compared():
    done = make("compare", "A=embedded", "B=smoke", "ARGS=outputs=there")
    assert done.stdout.strip().endswith("scripts/reproduce.py compare embedded smoke outputs=there")


def test_the_variables_that_exist_reach_the_script():
    done = make("sweep", "EXPERIMENT=paper", "LAUNCH=slurm", "ARGS=data=mnist n_per_class=10,13")
    assert done.returncode == 0
    line = "scripts/reproduce.py sweep experiment=paper launch=slurm data=mnist n_per_class=10,13"
    assert done.stdout.strip().endswith(line)
