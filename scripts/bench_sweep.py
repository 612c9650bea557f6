"""Trainings per hour of several ways to train the learning rates of one cell: a table and docs/benchmarks/sweep.csv.

    python scripts/bench_sweep.py                       # some six minutes on two cores
    python scripts/bench_sweep.py --networks mlp --n 10 --csv /dev/null

Ways (start-up is measured once, and counted once a training in the first two):
    process_per_rate           one process a rate, one after the other, PyTorch's default threads: a plain sweep
    process_per_rate_and_core  one process a rate, as many at once as cores, one thread each
    in_one_process             one rate after the other in one process, default threads
    process_per_core           one lasting process a core, one thread each, one rate after the other: the pipeline
    stacked                    the same processes, several rates at once
    graph                      one rate after the other, its steps replayed as CUDA graphs: the pipeline on a GPU
    stacked_graph              several rates at once, their steps as CUDA graphs            (GPU only)
    compiled                   stacked, through torch.compile with CUDA graphs              (GPU only)
    streams                    several rates in one process, each on a CUDA stream          (GPU only)
    graph_streams              the same, their steps as CUDA graphs                         (GPU only)

The images are random: time does not depend on them. On a GPU scripts/accept_gpu.py times networks of full width.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from repro.models import Architecture
from repro.pipeline.composition import Composer
from repro.pipeline.config import CONF
from repro.pipeline.launch.local import WORKER_ENVIRONMENT
from repro.training.block import EVALUATION_BATCH, Runs, initial_network, layout
from repro.training.engines import ENGINES
from repro.training.precision import repeatable
from repro.training.recipe import Recipe

NETWORKS = ("vgg11", "resnet18", "mlp")
NARROW, FULL = 0.125, 1.0
STACKS = (2, 4, 16)  # of the scaling curve, besides --stack
CLASSES, TEST_EXAMPLES = 10, 1000
SLOW = 2.0  # seconds of a step, from which on a second step to warm up is enough
CUDA = torch.cuda.is_available()
CORES = len(os.sched_getaffinity(0))
DEVICE = "cuda" if CUDA else "cpu"
GPU_WAYS = ("graph", "stacked_graph", "compiled", "streams", "graph_streams")
PROCESS_WAYS = ("process_per_rate", "process_per_rate_and_core")


class Setting(NamedTuple):
    """What one process trains while it is timed."""

    network: str
    width: float
    n_per_class: int
    way: str
    stack: int  # networks trained at once
    seconds: float  # how long
    precision: str = "fp32"


class Speed(NamedTuple):
    """Of one process, for one training."""

    epoch_seconds: float
    evaluation_seconds: float
    steps: float  # timed


def recipe(epochs: int, precision: str) -> Recipe:
    """The paper's."""
    return Recipe(
        epochs=epochs, batch_size=128, momentum=0.9, weight_decay=5e-4, milestones=[1 / 3, 2 / 3], factor=0.1,
        evaluate="last", precision=precision, last_batch="keep", seed=0,
    )  # fmt: skip


def measure(setting: Setting) -> Speed:
    """Train for `seconds`, at least one step, after up to three of each size of batch to warm up; then evaluate."""
    like = torch.zeros(1, 1, 32, 32, device=DEVICE)
    x = torch.randn(CLASSES * setting.n_per_class, 1, 32, 32).to(like).to(memory_format=layout(like))
    y = torch.randint(CLASSES, (len(x),), device=like.device)
    of = recipe(1, setting.precision)
    sizes = {len(rows): rows for rows in of.batches(0, len(x))}
    with repeatable(setting.precision):
        groups = start(setting, like, of)
        streams = [torch.cuda.Stream() for _ in groups] if setting.way.endswith("streams") else []
        start_epoch(groups)
        for round_ in range(3):
            once, _ = clock(lambda: [step(groups, streams, x[rows], y[rows]) for rows in sizes.values()])
            if round_ and once > SLOW:
                break
        steps = max(1, round(setting.seconds / once * len(sizes)))
        seconds, seen = clock(lambda: train(groups, streams, x, y, of, steps))
        images = x[torch.arange(TEST_EXAMPLES + len(x)) % len(x)].split(EVALUATION_BATCH)
        labelled = [(batch, y[:1].expand(len(batch))) for batch in images]
        evaluating, _ = clock(lambda: [runs.evaluate(labelled) for runs in groups])
    return Speed(seconds * len(x) / seen / setting.stack, evaluating / setting.stack, steps)


def start_epoch(groups: list[Any]) -> None:
    for runs in groups:
        runs.start_epoch([0.01] * len(runs.indices))


def train(groups: list[Any], streams: list[Any], x: torch.Tensor, y: torch.Tensor, of: Recipe, steps: int) -> int:
    """So many steps, epoch after epoch, as the engine takes them; returns the number of examples seen."""
    epoch, seen = 0, 0
    while steps > 0:
        start_epoch(groups)
        for rows in of.batches(epoch, len(x))[:steps]:
            rows = rows.to(x.device, non_blocking=True)
            step(groups, streams, x[rows], y[rows])
            seen, steps = seen + len(rows), steps - 1
        for runs in groups:
            runs.finite()  # waits for the device
        epoch += 1
    return seen


def step(groups: list[Any], streams: list[Any], x: torch.Tensor, y: torch.Tensor) -> None:
    """One step of all networks, each group on the stream of its own if there are streams."""
    if not streams:
        for runs in groups:
            runs.step(x, y)
        return
    for runs, stream in zip(groups, streams):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            runs.step(x, y)
    for stream in streams:
        torch.cuda.current_stream().wait_stream(stream)


def clock(function: Callable[[], Any]) -> Any:
    """Seconds a call takes, its work on the GPU included, and what it returns."""
    begin = time.perf_counter()
    found = function()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - begin, found


class Graphed:
    """An engine's runs whose step is replayed as a CUDA graph, one for each size of batch: one launch for hundreds.

    The learning rates stay those of the first epoch, which is enough to time it.
    """

    def __init__(self, runs: Runs):
        self.runs = runs
        self.graphs: dict[int, tuple[Any, torch.Tensor, torch.Tensor]] = {}
        self.indices, self.finite, self.evaluate = runs.indices, runs.finite, runs.evaluate

    def start_epoch(self, rates: list[float]) -> None:
        if not self.graphs:
            self.runs.start_epoch(rates)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        if len(x) not in self.graphs:
            self.graphs[len(x)] = self.capture(x.clone(), y.clone())
        graph, own_x, own_y = self.graphs[len(x)]
        own_x.copy_(x)
        own_y.copy_(y)
        graph.replay()

    def capture(self, x: torch.Tensor, y: torch.Tensor) -> tuple[Any, torch.Tensor, torch.Tensor]:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self.runs.step(x, y)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.runs.step(x, y)
        return graph, x, y


def build(network: str, width: float) -> torch.nn.Module:
    """A network for ten classes of one channel."""
    return architecture(network, width).build(channels=1, classes=CLASSES, side=32)


@lru_cache
def architecture(network: str, width: float) -> Architecture:
    """Half a second each time, were it not kept."""
    return Architecture.from_keys(Composer([f"model={network}", f"width={width}"], (), CONF).config.model)


def start(setting: Setting, like: torch.Tensor, of: Recipe) -> list[Any]:
    """The networks of a setting: one stack, or as many single ones as there are streams."""

    initial = initial_network(lambda: build(setting.network, setting.width), like, seed=0)
    indices = list(range(setting.stack))
    if setting.way in ("stacked", "stacked_graph", "compiled"):
        runs = ENGINES["stacked"](initial, of, indices)
        if setting.way == "compiled":
            runs._losses = torch.compile(runs._losses, mode="reduce-overhead")  # type: ignore[union-attr, method-assign]
        groups = [runs]
    else:
        groups = [ENGINES["sequential"](initial, of, [index]) for index in indices]
    if setting.way == "graph":
        return groups  # the pipeline's own way
    for runs in groups:
        runs.replay = None  # type: ignore[union-attr]
    return [Graphed(runs) for runs in groups] if "graph" in setting.way else groups


def startup_seconds(threads: int, processes: int, times: int = 2) -> float:
    """A process that imports torch, builds a network and ends; `processes` at once, `threads` each; the fastest."""
    command = [sys.executable, __file__, "--start-up-only"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        for process in [subprocess.Popen(command, env=environment) for _ in range(processes)]:
            process.wait()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def plan(networks: list[str], sizes: list[int], stack: int, seconds: float) -> list[Setting]:
    """Every way at every size for narrow networks, stack sizes at the smallest, and full width at the smallest."""
    ways = [("in_one_process", 1), ("process_per_core", 1), ("stacked", stack)]
    if CUDA:
        ways = [("in_one_process", 1), ("stacked", stack), *((way, 1 if way == "graph" else stack) for way in GPU_WAYS)]
    settings = [
        Setting(network, NARROW, n, way, count, seconds) for network in networks for n in sizes for way, count in ways
    ]
    for network in networks:
        settings += [Setting(network, NARROW, sizes[0], "stacked", count, seconds) for count in STACKS]
        if network != "resnet18" or CUDA:  # half a minute a step on two cores
            settings += [Setting(network, FULL, sizes[0], way, min(count, 2), seconds) for way, count in ways]
    return settings


def rows(setting: Setting, speeds: list[Speed], startup: dict[str, float], epochs: int) -> list[dict[str, Any]]:
    """One row for the way measured, and one for the same with a start-up for each training."""
    speed = Speed(*(sum(values) / len(speeds) for values in zip(*speeds)))
    training = epochs * speed.epoch_seconds + speed.evaluation_seconds
    ways = {setting.way: training}
    for way, timed in zip(PROCESS_WAYS, ("in_one_process", "process_per_core")):
        if setting.way == timed:
            ways[way] = training + startup[way]
    images = CLASSES * setting.n_per_class / speed.epoch_seconds
    return [
        {
            **setting._asdict(),
            "way": way,
            "processes": len(speeds),
            "steps": round(speed.steps),
            "images_per_second_and_process": round(images),
            "trainings_per_hour": round(3600 * len(speeds) / seconds, 1),
        }
        for way, seconds in ways.items()
    ]


def run(settings: list[Setting], epochs: int) -> pd.DataFrame:
    """Time all settings: those of one process with all threads, the others in one process a core."""
    startup = {
        "process_per_rate": startup_seconds(CORES, 1),
        "process_per_rate_and_core": startup_seconds(1, 1 if CUDA else CORES),
    }
    print("start-up of a process, seconds:", {way: round(seconds, 1) for way, seconds in startup.items()}, flush=True)
    spawn, table = multiprocessing.get_context("spawn"), []
    with spawn.Pool(1, torch.set_num_threads, (CORES,)) as one:
        os.environ |= WORKER_ENVIRONMENT  # the pipeline's workers have it, a plain sweep's process has not
        with spawn.Pool(CORES, torch.set_num_threads, (1,)) as each_core:
            for setting in settings:
                alone = CUDA or setting.way == "in_one_process"
                speeds = (
                    one.map(measure, [setting]) if alone else each_core.map(measure, [setting] * CORES, chunksize=1)
                )
                table += rows(setting, speeds, startup, epochs)
                print(*setting[:5], table[-1]["trainings_per_hour"], flush=True)
    frame = pd.DataFrame(table).drop(columns="seconds")
    return (frame if CUDA else pd.concat([frame, unmeasured(frame)])).astype({"stack": "Int64", "processes": "Int64"})


def unmeasured(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that say which ways this device could not try."""
    cells = frame[["network", "width", "n_per_class"]].drop_duplicates()
    return pd.concat(cells.assign(way=way, note="unmeasured: needs a GPU") for way in GPU_WAYS)


def with_speedup(frame: pd.DataFrame) -> pd.DataFrame:
    """Add how many times as many trainings an hour as with one process per rate."""
    cell = ["network", "width", "n_per_class"]
    base = frame[frame.way == PROCESS_WAYS[0]].set_index(cell).trainings_per_hour
    times = frame.trainings_per_hour / base.reindex(pd.MultiIndex.from_frame(frame[cell])).to_numpy()
    return frame.assign(times_process_per_rate=times.round(2)).sort_values([*cell, "way", "stack"])


def machine() -> dict[str, str | int]:
    """Where and when the table was made."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(": ")[2] for line in info.splitlines() if line.startswith("model name")]
    device = torch.cuda.get_device_name() if CUDA else (names or [platform.processor()])[0]
    return {"device": device, "cores": CORES, "torch": torch.__version__, "date": datetime.date.today().isoformat()}


def markdown(frame: pd.DataFrame) -> str:
    """The table as text."""
    shown = frame.astype(object).where(frame.notna(), "").astype(str)
    lines = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--n", nargs="+", type=int, default=[10, 37, 136], help="training examples per class")
    parser.add_argument("--epochs", type=int, default=40, help="of the training that is reckoned; fewer are run")
    parser.add_argument("--stack", type=int, default=8, help="networks trained at once")
    parser.add_argument("--seconds", type=float, default=2.0, help="training time measured for each row")
    parser.add_argument("--csv", type=Path, default=Path("docs/benchmarks/sweep.csv"))
    parser.add_argument("--start-up-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start_up_only:
        like = torch.zeros(1, 1, 32, 32, device=DEVICE)
        start(Setting("vgg11", NARROW, 10, "in_one_process", 1, 0.0), like, recipe(1, "fp32"))
        return
    frame = with_speedup(run(plan(args.networks, args.n, args.stack, args.seconds), args.epochs))
    frame = frame.assign(epochs=args.epochs, **machine())
    args.csv.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(args.csv, index=False)
    print(markdown(frame.drop(columns=["epochs", "device", "cores", "torch", "date"])))


if __name__ == "__main__":
    main()
