"""How long commands take where the paper's whole sweep, 18 000 trainings, is stored: docs/benchmarks/store.csv.

    python scripts/bench_store.py                       # some five minutes; makes the folder, once
    python scripts/bench_store.py --folder DIR --csv /dev/null

Each command is a process of its own, twice: the first finds what it has to know about the folder itself, the second may
know it from the first. A cluster is played by three scripts. The outcomes are made up, as no time depends on them.
Networks are not retrained, so that there is something to plan and to submit.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from repro.pipeline.experiment import Experiment
from repro.storage import files, runs
from repro.storage.layout import claim_folder
from repro.storage.provenance import code_version

SCRIPT = Path(__file__).resolve().with_name("reproduce.py")
CLUSTER = {  # what stands for the commands of SLURM
    "squeue": "#!/bin/sh\n",
    "scontrol": "#!/bin/sh\necho 'MaxArraySize = 1001'\necho 'MaxJobCount = 10000'\n",
    "sbatch": "#!/bin/sh\necho Submitted batch job $$\n",
}
COMMANDS = {  # arguments of scripts/reproduce.py, for each row of the table
    "status": ["status"],
    "status on SLURM": ["status", "launch=slurm"],
    "logs": ["logs", "launch=slurm"],
    "dry run": ["all", "launch=slurm", "--dry-run"],
    "submit": ["all", "launch=slurm"],
    "select": ["select"],
    "figx1": ["figx1"],
    "plan": ["plan"],
}
NOTING_MEMORY = """
import atexit, runpy, sys
atexit.register(lambda: sys.stderr.write(next(line for line in open("/proc/self/status") if "VmHWM" in line)))
sys.argv = sys.argv[1:]
sys.path[0] = ""
runpy.run_path(sys.argv[0], run_name="__main__")
"""
POLL = """
import json, sys, time
from pathlib import Path
from repro.pipeline.experiment import Experiment
from repro.pipeline.launch.queue import Job
from repro.pipeline.launch.states import Watch
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event in ("open", "os.listdir", "os.scandir") else None)
experiment = Experiment(sys.argv[1:])
watch, jobs = Watch(experiment.stages(), experiment.root), [Job("7", "retrain", "PENDING", "Priority")]
watch.look(jobs)
opened.clear()
start = time.perf_counter()
watch.look(jobs)
print(json.dumps({"seconds": time.perf_counter() - start, "opened": len(opened)}))
"""


def fill(outputs: Path) -> Path:
    """Store an outcome for every training of the paper's grid; returns the experiment's folder."""
    experiment = Experiment(["experiment=paper", f"outputs={outputs}"])
    done = outputs / "filled"
    if done.exists():
        return experiment.root
    claim_folder(experiment.root, experiment.experiment)
    files.os.fsync = lambda _: None  # type: ignore[assignment]  # the folder is no result, and this takes most of the time
    drawn = random.Random(0)
    for cell, trainings in experiment.cells().items():
        for index in range(trainings.rates.count):
            loss, error = drawn.uniform(0.1, 3), drawn.uniform(0.05, 0.9)
            curves = {"train_loss": loss / 2, "train_error": error / 2, "test_loss": loss, "test_error": error}
            history = {name: [value] for name, value in curves.items()}
            outcome = {
                "metrics": {"diverged": index < 3, **curves},
                "history": {"epoch": [trainings.recipe.epochs], **history},
            }
            made = {
                "code": "0123456", "python": "3.11.7", "torch": "2.12.1", "torchvision": "0.27.1", "numpy": "2.4.1",
                "device": "a GPU", "threads": 1, "host": "node1", "seconds": 60.0, "engine": "stacked",
            }  # fmt: skip
            path = runs.run_path(experiment.root, cell, index)
            runs.write_run(path, trainings.identity(index), outcome, made | trainings.titles)
    done.touch()
    return experiment.root


def timed(arguments: list[str]) -> dict[str, Any]:
    """Seconds, seconds of a core, and peak memory of one process that runs scripts/reproduce.py."""
    line = [sys.executable, "-c", NOTING_MEMORY, str(SCRIPT), *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(arguments)} failed: {said}")
    return {
        "seconds": round(seconds, 2),
        "core_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_MiB": int(said.split()[-2]) // 1024,
    }


def measure(outputs: Path, root: Path) -> list[dict[str, Any]]:
    """A row for each command."""
    given = ["experiment=paper", f"outputs={outputs}", "device=cpu"]
    rows: list[dict[str, Any]] = []
    line = [sys.executable, "-c", POLL, *given, "launch=slurm"]
    polled = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    rows.append({"command": "poll of wait", "seconds": round(polled["seconds"], 4), "opened": polled["opened"]})
    print(rows[-1], flush=True)
    for name, arguments in COMMANDS.items():
        first, again = (timed([*arguments, *given]) for _ in range(2))
        rows.append({"command": name, "first_seconds": first["seconds"], **again})
        print(rows[-1], flush=True)
    for made in ("slurm", "attempts", "figures", "runs.csv", "selected.csv"):
        path = root / made
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "repro_store")
    parser.add_argument("--csv", type=Path, default=Path("docs/benchmarks/store.csv"))
    args = parser.parse_args()
    root = fill(args.folder)
    commands = args.folder / "cluster"
    commands.mkdir(exist_ok=True)
    for name, text in CLUSTER.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    os.environ["PATH"] = f"{commands}{os.pathsep}{os.environ['PATH']}"
    table = pd.DataFrame(measure(args.folder, root))
    made = {"trainings": len(runs_stored(root)), "code": code_version(), "machine": platform.machine()}
    table = table.assign(**made, cores=len(os.sched_getaffinity(0)), date=str(datetime.date.today()))
    table.to_csv(args.csv, index=False)


def runs_stored(root: Path) -> list[Path]:
    """The files of the trainings."""
    return list((root / "runs").rglob("lr*.json"))


if __name__ == "__main__":
    main()
