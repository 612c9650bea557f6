"""The script that sbatch gets."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launching import changed

from repro.pipeline.launch import start
from repro.pipeline.launch.chain import chain
from repro.pipeline.launch.queue import SlurmError
from repro.pipeline.launch.sbatch import Place, executor_of, log_folder, script_options

ILL = [
    "o'brien",
    'a"$(touch X)`touch X`',
    "a'$(touch X)'b",
    "co:lon",
    "sp ace;touch X",
    "new\nline\ntouch X",
    "~",
    "-rf",
    "a#b&",
    "日",
]


@pytest.fixture
def bin(tmp_path, monkeypatch):
    """SLURM's commands as far as submitit looks for them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "srun").touch(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def executor(stages, launch, root, stage="sweep", code=Path("/code/0123")):
    (array,) = [a for a in chain(stages, changed(launch, retries=0), 1000) if a.stage == stage]
    return array, executor_of(array, launch, Place(root, log_folder(root), code, 0o027), None)


@pytest.mark.parametrize("name", ILL)
@pytest.mark.usefixtures("bin")
def test_no_path_is_read_by_a_shell_or_by_slurm(stages, launch, tmp_path, monkeypatch, name):
    """The script, run by a shell with a Python that tells its arguments and where it is."""
    root, here = tmp_path / name, tmp_path / "in" / name
    (here / "python").parent.mkdir(parents=True)
    python = here / "python"
    python.write_text(f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([os.getcwd(), *sys.argv[1:]]))\n")
    python.chmod(0o755)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "executable", str(python))
    code = root / "slurm" / "code" / "0123"
    array, made = executor(stages, launch, root, code=code)
    script = made._make_submission_file_text(made._submitit_command_str, "")
    options = script_options(array, made)
    assert all(re.fullmatch(r"--[a-z-]+(=[\w.,:@%'-]+( \w+)*'?)?", option, re.ASCII) for option in options)
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True, cwd="/")
    folder = str(log_folder(root))
    text = Path(start.__file__).read_text()
    begin = [str(here), "-P", "-u", "-c", text, str(code), "0123", "027"]
    assert json.loads(done.stdout) == [*begin, "-u", "-m", "submitit.core._submit", folder]
    assert not list(tmp_path.rglob("X"))
    assert "--output=%A_%a_0_log.out" in options  # relative: sbatch is called in the folder
    assert "--signal=B:USR2@120" in options


@pytest.mark.parametrize("name", ["50%", "a%jb", "back\\slash"])
def test_names_that_slurm_replaces_in_paths_are_refused(tmp_path, name):
    with pytest.raises(SlurmError, match=r"which SLURM replaces in names of logs; choose .*outputs="):
        log_folder(tmp_path / name)


@pytest.mark.usefixtures("bin")
def test_options_of_the_stage_and_of_all(stages, launch, tmp_path):
    own = {"mem": "3GB", "additional_parameters": {"nice": 10}}
    launch = changed(launch, resources={"exclude": "node7", "mail_type": "END"}, select=own)
    options = script_options(*executor(stages, launch, tmp_path, "select"))
    assert {"--mem=3GB", "--exclude=node7", "--nice=10", "--cpus-per-task=1", "--output=%j_0_log.out"} <= set(options)
    assert not any(option.startswith(("--mail", "--gpus", "--array", "--error")) for option in options)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("setup", "module load cuda", r"write setup: \['module load cuda'\]"),
        ("partition", "a\ntouch X", "option partition of stage select is not one line"),
        ("additional_parameters", {"nice": "1\rtouch X"}, "option nice of stage select is not one line"),
    ],
)
@pytest.mark.usefixtures("bin")
def test_options_that_cannot_be_are_refused(stages, launch, tmp_path, key, value, sentence):
    launch = changed(launch, select={key: value})
    with pytest.raises(SlurmError, match=rf"\A[^\n]*{sentence}[^\n]*\Z"):
        executor(stages, launch, tmp_path, "select")


@pytest.mark.usefixtures("bin")
def test_a_folder_that_is_gone_ends_the_job(stages, launch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    os.chdir(here)
    _, made = executor(stages, launch, tmp_path)
    here.rmdir()
    script = made._make_submission_file_text("touch X", "")
    assert subprocess.run(["bash"], input=script, text=True, cwd=tmp_path, capture_output=True).returncode
    assert not list(tmp_path.rglob("X"))
