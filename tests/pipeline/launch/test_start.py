"""A job runs the copy of the package that it was submitted with, or refuses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repro.pipeline.launch import start
from repro.pipeline.launch.snapshot import snapshot
from repro.pipeline.launch.start import digest_of

SHOWS = """
import os, sys
import repro.storage.files, repro.models
old = os.umask(0)
print(repro.__file__, repro.models.__file__, f"{old:03o}", sys.argv[1:], sep="\\n")
print([folder for folder in sys.path if folder in ("", os.getcwd())])
"""


@pytest.fixture
def code(tmp_path):
    return snapshot(tmp_path / "o'b:ri en\n$(touch X)" / "code")


@pytest.fixture
def job(tmp_path):
    folder = tmp_path / "job"
    folder.mkdir(0o700)
    return folder


@pytest.fixture
def elsewhere(tmp_path):
    """A module to run, and a checkout as the folder the job runs in."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(Path(start.__file__).parents[2], folder / "repro", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "shows.py").write_text(SHOWS)
    return folder


def run(code, job, elsewhere, *, digest=None, umask="027", path=None):
    line = [sys.executable, "-P", "-u", "-c", Path(start.__file__).read_text(), str(code), digest or code.name, umask]
    environment = os.environ | {"PYTHONPATH": str(path or elsewhere)}  # a checkout and the module on it, before others
    return subprocess.run(
        [*line, "-u", "-m", "shows", str(job)], cwd=elsewhere, capture_output=True, text=True, env=environment
    )


def test_the_copy_is_imported_whatever_else_there_is(code, job, elsewhere):
    done = run(code, job, elsewhere)
    assert done.returncode == 0, done.stderr
    package, module, umask, arguments, current = done.stdout.replace(str(code), "CODE").splitlines()
    assert (package, module) == ("CODE/repro/__init__.py", "CODE/repro/models/__init__.py")
    assert umask == "027"
    assert arguments == str([str(job)])
    assert current == str([str(elsewhere)])  # by PYTHONPATH alone


@pytest.mark.parametrize("damage", ["file", "changed", "added", "all", "name"])
def test_a_copy_that_is_not_what_was_submitted_is_refused(code, job, elsewhere, damage):
    file = code / "repro" / "storage" / "identity.py"
    digest = code.name
    if damage == "file":
        file.unlink()
    elif damage == "changed":
        stamp = file.stat()
        file.write_bytes(file.read_bytes().replace(b"sha256", b"sha512"))
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    elif damage == "added":
        (code / "repro" / "torch.py").touch()
    elif damage == "all":
        shutil.rmtree(code)
    else:
        digest = "0" * 16
    done = run(code, job, elsewhere, digest=digest)
    assert done.returncode == 1
    assert "is not what was submitted" in done.stderr
    assert "submit again" in done.stderr
    assert done.stdout == ""


def test_what_goes_missing_later_is_missing(code, job, elsewhere):
    """No module of another copy comes in its place, though an editable installation would have one."""
    (elsewhere / "shows.py").write_text(f"import shutil, repro; shutil.rmtree({str(code)!r})\nimport repro.models.mlp")
    done = run(code, job, elsewhere)
    assert done.returncode == 1
    assert "is not in " in done.stderr
    assert "the code that this job was submitted with" in done.stderr


def test_another_copy_that_is_loaded_already_is_refused(code, job, elsewhere):
    (elsewhere / "sitecustomize.py").write_text("import repro")
    done = run(code, job, elsewhere)
    assert done.returncode == 1
    assert "was imported before the job began" in done.stderr


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_job_that_others_can_write_is_refused(code, job, elsewhere, mode):
    job.chmod(mode)
    done = run(code, job, elsewhere)
    assert done.returncode == 1
    assert "others may write" in done.stderr


def test_bytecode_is_no_part_of_the_digest(code):
    assert digest_of(code) == code.name
    cache = code / "repro" / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "x.pyc").touch()
    assert digest_of(code) == code.name


def test_the_digest_tells_names_and_contents_apart(tmp_path):
    found = set()
    for number, files in enumerate([{}, {"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": "1"}, {"d/a": "1"}]):
        for name, content in files.items():
            path = tmp_path / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        found.add(digest_of(tmp_path / str(number)))
    assert len(found) == 6


def test_only_the_standard_library_is_imported():
    """The text runs before anything of ours may be."""
    code = "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]; exec(sys.stdin.read(), {})"
    text = Path(start.__file__).read_text()
    subprocess.run([sys.executable, "-I", "-S", "-c", code], input=text, text=True, check=True)
