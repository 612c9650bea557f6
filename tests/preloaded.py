"""Scripts run in processes of their own, in which the libraries that take seconds to load are there from the start.

A server loads them once, with nothing of ours, and forks for each script. All else is as with `python script words`,
or `python -m module words`.
"""

import functools
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("torch", "hydra", "omegaconf", "pandas", "matplotlib.figure", "rich.progress", "safetensors.torch")


def run(script: str | Path, *words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`python script words`, the script below this folder's parent or "-m module"; its exit code, and what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        line = script.split() if str(script).startswith("-m ") else [str(ROOT / script)]
        line += map(str, words)
        files = {name: f"{folder}/{name}" for name in ("stdout", "stderr")}
        order = {"line": line, "cwd": str(cwd), "environment": dict(os.environ), **files}
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        print(json.dumps(order), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(line, code, *(Path(file).read_text() for file in files.values()))


@functools.cache
def _server() -> "subprocess.Popen[str]":
    """It ends when its input does, with this process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def _orders() -> dict[str, Any] | None:
    """Answer orders with the exit codes of processes forked for them; returns in each such process with its order."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for order in sys.stdin:
        child = os.fork()
        if not child:
            return json.loads(order)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def _become(order: dict[str, Any]) -> None:
    """Take on the command line, folder, environment and streams of a script."""
    for number, path in enumerate((os.devnull, order["stdout"], order["stderr"])):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = order["line"]
    added = os.environ.get("PYTHONPATH")
    sys.path[:1] = [
        os.getcwd() if sys.argv[0] == "-m" else os.path.dirname(sys.argv[0]),
        *(added.split(os.pathsep) if added else []),
    ]


if __name__ == "__main__" and (order := _orders()):
    _become(order)
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
