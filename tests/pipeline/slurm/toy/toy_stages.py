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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from repro.pipeline import tasks
from repro.pipeline.selection import MissingRunsError
from repro.pipeline.tasks import COMPUTED, Task
from repro.storage.files import write_json


def toy_tasks(root, runs=6):
    """The lists of a toy experiment: `runs` trainings of two cells."""
    names = [f"toy/net/n{i % 2}/lr{i}" for i in range(runs)]
    cells = sorted({name.rsplit("/", 1)[0] for name in names})

    def stage(name, of):
        return [KINDS[name](root=Path(root), label=task, runs=tuple(names), cells=tuple(cells)) for task in of]

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


@dataclass(frozen=True, kw_only=True)
class Toy(Task):
    """One task; what it does is `work`, a function of its fields."""

    work: ClassVar[Callable[[dict[str, Any]], None]]

    label: str
    runs: tuple[str, ...]
    cells: tuple[str, ...]

    @property
    def name(self):
        return self.label

    @property
    def config(self):
        return {
            "root": str(self.root), "stage": self.stage, "name": self.label, "runs": self.runs, "cells": self.cells
        }  # fmt: skip

    def finished(self):
        return self.stage in COMPUTED and result_path(self.config, self.stage, self.label).exists()

    def run(self, device):
        type(self).work(self.config)


class Sweep(Toy):
    stage, work = "sweep", staticmethod(sweep)


class Select(Toy):
    stage, work = "select", staticmethod(select)


class Retrain(Toy):
    stage, work = "retrain", staticmethod(retrain)


class Measure(Toy):
    stage, work = "measure", staticmethod(measure)


class Figures(Toy):
    stage, work = "figures", staticmethod(figures)


class Report(Toy):
    stage, work = "report", staticmethod(report)


KINDS = {kind.stage: kind for kind in (Sweep, Select, Retrain, Measure, Figures, Report)}
