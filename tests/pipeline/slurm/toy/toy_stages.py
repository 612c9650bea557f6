"""Stages that take no time and fail on demand; everything around them is the real thing.

A file <root>/faults/<task> holds what befalls the task: "raise", "kill" (always), "kill once", "hang once" (after half
the work, which is kept), "slow", "eat" (a gigabyte). Each completion of a task leaves a file of its own below
<root>/completed.
"""

import json
import os
import signal
import time
import uuid
from pathlib import Path

from repro.pipeline import tasks
from repro.pipeline.selection import MissingRunsError
from repro.pipeline.tasks import Stage, Task
from repro.storage.files import write_json


def toy_tasks(root, runs=6):
    """The lists of a toy experiment: `runs` trainings of two cells."""
    config = {"root": str(root), "force": False}
    names = [f"toy/net/n{i % 2}/lr{i}" for i in range(runs)]
    cells = sorted({name.rsplit("/", 1)[0] for name in names})

    def stage(name, of):
        return [Task(name, task, {**config, "stage": name, "name": task, "runs": names, "cells": cells}) for task in of]

    return {
        "sweep": stage("sweep", names),
        "select": stage("select", ["toy"]),
        "retrain": stage("retrain", cells),
        "measure": stage("measure", [f"{cell}/spectrum" for cell in cells]),
        "figures": stage("figures", ["1"]),
        "report": stage("report", ["toy"]),
    }


def fault_path(root, name):
    return Path(root) / "faults" / name.replace("/", "_")


def result_path(config, stage, name):
    return Path(config["root"]) / "results" / stage / f"{name.replace('/', '_')}.json"


def completions(root, stage):
    """How often each task of a stage was completed."""
    counts = {}
    for path in Path(root).glob(f"completed/{stage}/*"):
        name = path.name.rsplit(".", 1)[0]
        counts[name] = counts.get(name, 0) + 1
    return counts


def suffer(config):
    """Meet the fault of the task, if it has one; returns the steps of work that an earlier attempt kept."""
    fault = fault_path(config["root"], config["name"])
    kept = fault.with_suffix(".kept")
    if kept.exists():
        return int(kept.read_text())
    what = fault.read_text() if fault.exists() else ""
    if what.endswith("once"):
        fault.unlink()
    if what == "raise":
        raise ValueError("the toy raises")
    if what.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "eat":
        eaten = bytearray(10**9)
        eaten[::4096] = b"x" * len(eaten[::4096])
        time.sleep(60)
    if what == "hang once":
        kept.write_text("5")
        time.sleep(600)
    if what == "slow":
        time.sleep(600 if Path(config["root"], "stall").exists() else 2)
    return 0


def compute(config, content):
    kept = suffer(config)
    result = {"kept": kept, "content": content, "code": tasks.__file__}
    write_json(result_path(config, config["stage"], config["name"]), result)
    done = Path(config["root"]) / "completed" / config["stage"] / f"{config['name'].replace('/', '_')}.{uuid.uuid4()}"
    done.parent.mkdir(parents=True, exist_ok=True)
    done.touch()


def read(config, stage, name):
    return json.loads(result_path(config, stage, name).read_text())["content"]


def sweep(config):
    compute(config, hash_of(config["name"]))


def hash_of(name):
    return sum(ord(letter) * 7**position for position, letter in enumerate(name)) % 1009


def select(config):
    missing = [name for name in config["runs"] if not result_path(config, "sweep", name).exists()]
    if missing:
        raise MissingRunsError(f"missing: {missing}")
    best = {}
    for cell in config["cells"]:
        best[cell] = min((read(config, "sweep", name), name) for name in config["runs"] if name.startswith(cell))
    compute(config, best)


def retrain(config):
    compute(config, read(config, "select", "toy")[config["name"]])


def measure(config):
    compute(config, read(config, "retrain", config["name"].rsplit("/", 1)[0]))


def figures(config):
    compute(config, [read(config, "measure", f"{cell}/spectrum") for cell in config["cells"]])


def report(config):
    compute(config, read(config, "figures", "1"))


def finished(config):
    return result_path(config, config["stage"], config["name"]).exists()


STAGES = {
    "sweep": Stage(sweep, finished),
    "select": Stage(select, lambda config: False),
    "retrain": Stage(retrain, finished),
    "measure": Stage(measure, finished),
    "figures": Stage(figures, lambda config: False),
    "report": Stage(report, lambda config: False),
}


def install():
    tasks.STAGES.update(STAGES)
