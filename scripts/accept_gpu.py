"""Whether the project does on a GPU what it promises: tests, products, training engines and one cell of the paper.

    python scripts/accept_gpu.py --out outputs/gpu                    # an H100: ten minutes in all
    python scripts/accept_gpu.py --pieces products --out outputs/gpu  # one piece alone
    python scripts/accept_gpu.py --small --out /tmp/gpu               # anywhere: tiny sizes, to try the script itself

Pieces, each with a bound on its seconds; what would not fit into it is left out, and the report says so:
    tests      what pytest marks gpu
    products   one Hessian or Gauss-Newton product in gradients: ours, other packages, the floor; peak memory
    engines    trainings per hour of every engine and precision, and their share of what the device can compute
    cell       VGG11 at n = 10 and 136: G exactly, the Hessian by Lanczos, the knockouts; seconds and peak memory

Each piece writes <piece>.csv, row by row, and its part of report.md; a row or a piece that fails leaves its error
there, what follows runs all the same, and the exit code is 1. Data are synthetic and need no network: times do not
depend on them. The knockouts want some 50 GiB on the device.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import bench_products
import bench_sweep
import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from repro.curvature.exact import dense_memory, exact_spectrum
from repro.data import Split
from repro.linalg.dense import eigh
from repro.measurements import gauss_newton_knockouts, hessian_spectrum
from repro.network import Network
from repro.pipeline.composition import Composer
from repro.pipeline.config import CONF
from repro.pipeline.cost import GRADIENT
from repro.training import train_block
from repro.training.block import initial_network
from repro.training.engines import training_bytes
from repro.training.precision import forward_precision, repeatable

ROOT = Path(__file__).resolve().parent.parent
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NETWORKS = ("vgg11", "mlp", "resnet18")
CLASSES, SIDE = 10, 32
STACK_BYTES = 2e10  # of the networks trained at once, as the pipeline's default
RATES = 100  # of a cell
PRECISIONS = ("fp32", "tf32", "bf16")
GRAPHS = ("in_one_process", "graph", "graph_streams")
CPU_WAYS = ("in_one_process", "stacked")
CELLS = [  # n, precision, ways: as far as the time goes
    (136, "fp32", (*GRAPHS, "stacked")),
    (136, "tf32", GRAPHS),
    (136, "bf16", GRAPHS),
    (10, "fp32", (*GRAPHS, "stacked")),
    (37, "fp32", GRAPHS),
    (10, "tf32", GRAPHS),
    (10, "bf16", GRAPHS),
]
LAYOUTS = {"large_batch": torch.contiguous_format, "large_batch_channels_last": torch.channels_last}


class Log:
    """What a piece finds, on disk as soon as it is found, and the time that is left to it."""

    def __init__(self, folder: Path, piece: str, seconds: float, small: bool):
        self.folder, self.piece, self.small = folder, piece, small
        self.begin, self.seconds = time.monotonic(), seconds
        self.rows: list[dict[str, Any]] = []
        self.failures = 0
        self.facts = bench_products.versions(DEVICE)

    def row(self, **values: Any) -> None:
        """Add a row to the piece's table."""
        self.rows.append(values)
        pd.DataFrame(self.rows).assign(**self.facts).to_csv(self.folder / f"{self.piece}.csv", index=False)

    def say(self, text: str) -> None:
        """Add lines to the report."""
        with open(self.folder / "report.md", "a") as file:
            file.write(text + "\n")
        print(text, flush=True)

    def left(self) -> float:
        """Seconds until the piece's bound."""
        return self.seconds - (time.monotonic() - self.begin)

    def fits(self, seconds: float, what: str) -> bool:
        """Whether work of so many seconds still fits; if not, the report says that it is left out."""
        left = self.left()
        if left < seconds:
            self.say(f"- left out, as {left:.0f} s are left and it may take {seconds:.0f}: {what}")
        return left >= seconds

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Go on after a failure of one row of many; the report says what failed."""
        try:
            yield
        except Exception as error:
            self.failures += 1
            reason = " ".join(str(error).split())[:200]
            self.say(f"- failed: {what}: {type(error).__name__}: {reason}")
        gc.collect()
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()


def tests(log: Log) -> None:
    """What pytest marks gpu.

    Raises:
        RuntimeError: a test fails, or they do not end in time.
    """
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-vv", "--durations=10", "-p", "no:cacheprovider"]
    output = log.folder / "tests.log"
    with open(output, "w") as file:
        try:
            code = subprocess.run(
                [*command, *map(str, files)], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=log.left()
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
    text = output.read_text()
    for name, outcome in re.findall(r"^(\S+::.+?) (PASSED|FAILED|SKIPPED|ERROR)", text, flags=re.MULTILINE):
        log.row(test=name, outcome=outcome.lower())
    counts = pd.Series([row["outcome"] for row in log.rows], dtype=object).value_counts().to_dict()
    log.say(f"pytest -m gpu: {', '.join(f'{count} {outcome}' for outcome, count in counts.items()) or 'no test ran'}")
    if code != 0:
        log.say("```\n" + text[-3000:] + "\n```")
        raise RuntimeError(f"pytest ends with {code}" if code is not None else "the tests do not end in time")


def products(log: Log) -> None:
    """Products in gradients at a batch of 128, in float32 and beside what TF32 would give."""
    batch, width = (4, 0.03) if log.small else (128, 1.0)
    problems = [(1, "ieee", 5), (1, "tf32", 3), (4, "ieee", 3)]
    for batches, precision, repeats in problems[:1] if log.small else problems:
        for name in NETWORKS[: 1 if log.small else 3]:
            what = f"{name}, {batches} batches, {precision}"
            if not log.fits(15, what):
                continue
            with log.attempt(what):
                found = bench_products.compare(
                    name, batches, DEVICE, repeats, batch=batch, width=width, precision=precision
                )
                for row in found:
                    log.row(**row)
    if not log.small:
        for name in NETWORKS:
            if log.fits(40, f"{name}, gradient of the compiled network"):
                with log.attempt(f"{name}, gradient of the compiled network"):
                    log.row(**compiled_gradient(name, batch))
    table = pd.DataFrame(log.rows)
    log.say("Gradients that a product takes, median [quartiles]; the floor is 2 for the Hessian and 1.33 for G.\n")
    log.say(bench_products.markdown(table))
    log.say("\nPeak memory, MiB, and milliseconds of a product:\n")
    log.say(listed(table[["network", "batches", "precision", "matrix", "method", "peak_MiB", "milliseconds"]]))


def compiled_gradient(name: str, batch: int) -> dict[str, Any]:
    """The gradient of a network under torch.compile, in plain gradients: products run networks as they are written."""
    model, data = bench_products.problem(name, 1, DEVICE, batch)
    plain = bench_products.gradient(model, data)
    compiled = bench_products.gradient(torch.compile(model), data)  # type: ignore[arg-type]
    with bench_products.products_in("ieee"):
        for _ in range(3):
            plain(), compiled()
        times = [
            {"gradient": bench_products.clock(plain, DEVICE), "product": bench_products.clock(compiled, DEVICE)}
            for _ in range(7)
        ]
    facts = {"network": name, "batches": 1, "batch": batch, "precision": "ieee"}
    return {**facts, "matrix": "gradient", "method": "compiled", **bench_products.summary(pd.DataFrame(times))}


def engines(log: Log) -> None:
    """Trainings per hour, in the order of interest, of every way and precision that a cell may be trained by."""
    yard = Yardsticks({precision: matmul_rate(precision, 256 if log.small else 8192) for precision in PRECISIONS})
    log.say(f"Large products, Tflop/s: {', '.join(f'{name} {rate / 1e12:.3g}' for name, rate in yard.peaks.items())}.")
    if not log.small:
        yard.startup = bench_sweep.startup_seconds(len(os.sched_getaffinity(0)), 1, times=1)
    log.say(f"A process starts in {yard.startup:.1f} s.\n")
    for n, precision, ways in [(4, "fp32", CPU_WAYS)] if log.small else CELLS:
        for network in NETWORKS[:1] if log.small else NETWORKS:
            timed = Timed(network, 0.03 if log.small else 1.0, n, precision, log.small)
            yard.fill_the_device(log, timed)
            for way in ways:
                what = f"{network}, n = {n}, {precision}, {way}"
                if log.fits(10, what):
                    with log.attempt(what):
                        log.row(**yard.compare(timed, timed.measure(way)))
    for network in ("mlp", "vgg11"):
        timed = Timed(network, 1.0, 10, "fp32", log.small)
        if not log.small and log.fits(60, f"{network}, compiled"):
            with log.attempt(f"{network}, compiled"):
                log.row(**yard.compare(timed, timed.measure("compiled")))
    log.say(listed(pd.DataFrame(log.rows).drop(columns=["width", "epochs"], errors="ignore")))


@dataclass
class Yardsticks:
    """What the rates of training are compared with, once it has been measured."""

    peaks: dict[str, float]  # operations per second of a large matrix product, by precision
    startup: float = 10.0  # seconds of a process
    large: dict[tuple[str, str], float] = field(default_factory=dict)  # images per second, by network and precision
    plain: dict[tuple[str, int], float] = field(default_factory=dict)  # trainings per hour by a process a rate

    def fill_the_device(self, log: Log, timed: Timed) -> None:
        """Time a network at a large batch, in both layouts of memory, once for each precision."""
        key = timed.network, timed.precision
        for way, memory_format in LAYOUTS.items() if key not in self.large and log.left() > 5 else ():
            with log.attempt(f"{way} of {key}"):
                rate = timed.large_batch_rate(memory_format)
                self.large.setdefault(key, rate)
                share = round(rate * timed.flop() / self.peaks[timed.precision], 4)
                log.row(**timed.facts(), way=way, images_per_second=round(rate, 1), share_of_peak=share)

    def compare(self, timed: Timed, found: dict[str, Any]) -> dict[str, Any]:
        """The row of one way to train; the first of a cell is one after the other, in float32."""
        hourly, images = found["trainings_per_hour"], found["images_per_second"]
        plain = self.plain.setdefault((timed.network, timed.n), 3600 / (3600 / hourly + self.startup))
        large = self.large.get((timed.network, timed.precision), math.nan)
        return found | {
            "times_process_per_rate": round(hourly / plain, 2),
            "share_of_peak": round(images * timed.flop() / self.peaks[timed.precision], 4),
            "share_of_large_batch": round(images / large, 3),
        }


class Timed(NamedTuple):
    """The trainings of a cell, to be timed."""

    network: str
    width: float
    n: int
    precision: str
    small: bool  # the script is only tried

    def facts(self) -> dict[str, Any]:
        """For a row."""
        return {"network": self.network, "width": self.width, "n": self.n, "precision": self.precision}

    def build(self) -> torch.nn.Module:
        """The network."""
        return bench_sweep.build(self.network, self.width)

    def flop(self) -> float:
        """Operations of one image in training."""
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.build().eval()(torch.zeros(1, 1, SIDE, SIDE))
        return GRADIENT * counter.get_total_flops()

    def stack(self, way: str) -> int:
        """How many networks at once: of a stack as many as the pipeline takes."""
        if way in ("in_one_process", "graph"):
            return 1
        if self.small or way == "graph_streams":
            return 2 if self.small else 8
        x = torch.zeros(min(128, CLASSES * self.n), 1, SIDE, SIDE, device=DEVICE)
        initial = initial_network(self.build, x, seed=0)
        return min(RATES, max(1, int(STACK_BYTES // training_bytes(initial, (x, x.new_zeros(len(x)).long())))))

    def measure(self, way: str) -> dict[str, Any]:
        """One way to train, as `bench_sweep` times it, with the 10 000 test images of Fashion-MNIST."""
        setting = bench_sweep.Setting(
            self.network, self.width, self.n, way, self.stack(way), 0.03 if self.small else 0.5, self.precision
        )
        with bench_products.memory(DEVICE) as used:
            speed = bench_sweep.measure(setting)
        epochs = paper_epochs(self.network)
        training = epochs * speed.epoch_seconds + 10_000 / bench_sweep.TEST_EXAMPLES * speed.evaluation_seconds
        return {
            **self.facts(),
            "way": way,
            "stack": setting.stack,
            "epochs": epochs,
            "steps": speed.steps,
            "images_per_second": round(CLASSES * self.n / speed.epoch_seconds, 1),
            "trainings_per_hour": round(3600 / training, 2),
            "peak_MiB": used.get("peak_MiB"),
        }

    def large_batch_rate(self, memory_format: torch.memory_format) -> float:
        """Images per second of plain training steps at a batch that fills the device."""
        batch = 8 if self.small else 2048
        x = torch.randn(batch, 1, SIDE, SIDE, device=DEVICE).contiguous(memory_format=memory_format)
        y = torch.randint(CLASSES, (batch,), device=DEVICE)
        setting = bench_sweep.Setting(self.network, self.width, 1, "in_one_process", 1, 0.0)
        with repeatable(self.precision):
            (runs,) = bench_sweep.start(setting, x, bench_sweep.recipe(1, self.precision))
            runs.network.to(memory_format=memory_format)
            runs.start_epoch([0.01])
            for parameter, state in runs.sgd.state.items():  # in the layout of its parameter
                state["momentum_buffer"] = torch.zeros_like(parameter)
            seconds = min(bench_sweep.clock(lambda: runs.step(x, y))[0] for _ in range(5))
        return batch / seconds


@lru_cache
def paper_epochs(network: str) -> int:
    """Of a training on Fashion-MNIST."""
    return Composer([f"model={network}", "data=fashion_mnist"], (), CONF).config.training.epochs


def matmul_rate(precision: str, size: int) -> float:
    """Operations per second of one large product of square matrices of random numbers."""
    dtype = torch.float64 if precision == "fp64" else torch.float32
    a = torch.randn(size, size, dtype=dtype, device=DEVICE)
    with repeatable("fp32" if precision == "fp64" else precision), forward_precision(DEVICE, precision):
        a = a.bfloat16() if precision == "bf16" else a
        seconds = sorted(bench_sweep.clock(lambda: a @ a)[0] for _ in range(10))
    return 2 * size**3 / seconds[5]


def cell(log: Log) -> None:
    """Spectra of the full VGG11 on ten synthetic classes, after some hundred steps of training."""
    if DEVICE.type == "cuda":
        rate = matmul_rate("fp64", 256 if log.small else 8192)
        log.say(f"Large matrix products in float64: {rate / 1e12:.3g} Tflop/s.\n")
    for n, seconds in ((2, 1),) if log.small else ((10, 10), (136, 40)):
        with log.attempt(f"training at n = {n}"):
            network = trained(n, 0.03 if log.small else 1.0, log)
            for what, (share, estimate, job) in jobs(network, 12 if log.small else None).items():
                if log.fits(share * seconds, f"n = {n}, {what}"):
                    with log.attempt(f"n = {n}, {what}"):
                        with bench_products.memory(DEVICE) as used:
                            took = bench_products.clock(job, DEVICE)
                        log.row(n=n, what=what, seconds=round(took, 2), **used, estimated_MiB=estimate)
    log.say(listed(pd.DataFrame(log.rows)))


def jobs(network: Network, steps: int | None) -> dict[str, tuple[int, int | None, Callable[[], Any]]]:
    """What is measured of a network: roughly its share of the time, the memory it is said to take, and the work."""
    n = len(network.train.labels) * (CLASSES - 1)
    usual = hessian_spectrum.Settings(spectra=["train_hessian"], steps=steps)
    roomy = hessian_spectrum.Settings(spectra=["train_hessian"], steps=steps, memory_bytes=3e10)
    knockouts = gauss_newton_knockouts.Settings(steps=steps, memory_bytes=3e10)
    return {
        "exact G": (2, dense_memory(n, CLASSES, DEVICE) >> 20, lambda: exact(network)),
        f"eigenvectors of {n} x {n}": (1, None, lambda: eigh(symmetric(n))),
        "Hessian by Lanczos": (1, None, lambda: hessian_spectrum.measure(network, usual)),
        "Hessian by Lanczos, basis of 30 GB": (1, None, lambda: hessian_spectrum.measure(network, roomy)),
        "knockouts by Lanczos, basis of 30 GB": (2, None, lambda: gauss_newton_knockouts.measure(network, knockouts)),
    }


def exact(network: Network) -> Any:
    """The exact spectrum of G with its parts and knockouts, within the default memory."""
    return exact_spectrum(network.model, network.batches(), memory_budget=int(8e9))


def symmetric(size: int) -> Tensor:
    """A random positive matrix."""
    A = torch.randn(size, size, dtype=torch.float64, device=DEVICE)
    return A @ A.T


def trained(n: int, width: float, log: Log) -> Network:
    """VGG11 after some 110 steps on noisy copies of ten smooth patterns; no spectrum takes longer on other weights."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(CLASSES, 1, 8, 8, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    y = torch.arange(CLASSES * n) % CLASSES
    images = patterns[y] + torch.randn(len(y), 1, SIDE, SIDE, generator=generator)
    split = Split(images, y, CLASSES).to(DEVICE)
    kept: list[torch.nn.Module] = []
    epochs = 1 if log.small else max(10, 1100 // len(y) * 10)
    recipe = bench_sweep.recipe(epochs, "tf32")
    begin = time.perf_counter()
    (history,) = train_block(
        lambda: bench_sweep.build("vgg11", width), split, split, [0.01], recipe,
        engine="sequential", on_checkpoint=lambda *found: kept.append(found[2]), checkpoint_epochs=[epochs],
    )  # fmt: skip
    log.say(f"- n = {n}: {epochs} epochs in {time.perf_counter() - begin:.1f} s, error {history.train_error[-1]:.3f}")
    return Network(kept[0].eval(), split, batch_size=256)


def listed(table: pd.DataFrame) -> str:
    """A table as text."""
    shown = table.astype(object).where(table.notna(), "").astype(str)
    lines = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PIECES: dict[str, tuple[Callable[[Log], None], int]] = {  # seconds at most
    "tests": (tests, 90),
    "products": (products, 120),
    "engines": (engines, 150),
    "cell": (cell, 240),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", nargs="+", default=list(PIECES), choices=list(PIECES))
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script itself")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and the report")
    args = parser.parse_args()
    if DEVICE.type == "cpu" and not args.small:
        parser.error("PyTorch sees no GPU here; --small tries the script on a CPU")
    args.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.WARNING)
    summary, failed = [], 0
    for piece in args.pieces:
        run, seconds = PIECES[piece]
        log = Log(args.out, piece, seconds, args.small)
        log.say(f"\n## {piece}\n\n{log.facts['device']}, torch {log.facts['torch']}, {log.facts['date']}.\n")
        try:
            run(log)
        except Exception:
            log.failures += 1
            log.say(f"\n```\n{traceback.format_exc()}```")
        failed += log.failures
        outcome = f"{log.failures} failures" if log.failures else "done"
        summary.append(f"{piece}: {outcome}, {len(log.rows)} rows, {time.monotonic() - log.begin:.0f} s of {seconds}")
    print("\n" + "\n".join(summary))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
