"""What is printed can be pasted."""

import json
import subprocess
import sys

import pytest

from repro.pipeline.launch.hints import Hints

SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"
MAKEFILE = f"""
ARGS ?=
status:
	@{sys.executable} -c '{SHOW}' experiment=$(EXPERIMENT) launch=$(LAUNCH) $(ARGS)
"""


@pytest.mark.parametrize(
    "rest",
    [
        ["data=mnist", "n_per_class=10,13"],
        ["outputs=/tmp/o'brien's \"runs\""],
        ["outputs=a'$(touch X)'b", "lr_index=range(0,8)"],
        ["outputs=50%#1 \\back", "+launch.resources.setup=[a;b, c|d]"],
        ["outputs=`touch X`", "name=$HOME", "~site"],
    ],
)
def test_a_pasted_hint_gives_the_script_what_it_had(tmp_path, rest):
    (tmp_path / "Makefile").write_text(MAKEFILE)
    given = ["experiment=smoke", "launch=slurm", *rest]
    line = Hints(given).make("status").removeprefix("`").removesuffix("`")
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == given
    assert not (tmp_path / "X").exists()


def test_what_was_not_given_is_left_out():
    assert Hints(["experiment=smoke", "launch=slurm"]).make("wait") == "`make wait EXPERIMENT=smoke LAUNCH=slurm`"
    assert Hints([]).make("wait") == "`make wait LAUNCH=slurm`"
    assert Hints(["n_per_class=4", "launch=local", "launch=slurm"]).make("wait") == (
        "`make wait LAUNCH=slurm ARGS=n_per_class=4`"
    )
