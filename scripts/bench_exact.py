"""What the exact spectrum of G costs, beside the Lanczos spectra of the same cell, and how it grows.

python scripts/bench_exact.py --cells mlp:10 mlp:19 vgg11:10 vgg11:19 vgg11:10:1 --out docs/benchmarks/exact.csv

A cell is network:n_per_class[:width]. Its network is the selected one of --experiment, or one trained here (at another
width for one epoch: the cost is that of any weights). Each method runs in a process of its own, so that its peak memory
is its own; one gradient is a forward and backward pass over the same data, timed before and after in the same process.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from bench_eigenpairs import network as selected_network
from torch.nn.functional import cross_entropy

from repro.curvature.exact import exact_spectrum
from repro.measurements import gauss_newton_knockouts
from repro.network import Network
from repro.pipeline.composition import Composer
from repro.pipeline.config import CONF
from repro.pipeline.devices import find_device
from repro.pipeline.experiment import retrain_task
from repro.storage.provenance import provenance

STEPS = 64  # of Lanczos for each of its spectra


def exact(*knockouts: str) -> Callable[[Network], Any]:
    return lambda network: exact_spectrum(network.model, network.batches(), knockouts=knockouts)  # type: ignore[arg-type]


def lanczos(network: Network) -> Any:
    return gauss_newton_knockouts.measure(network, gauss_newton_knockouts.Settings(steps=STEPS))


METHODS: dict[str, Callable[[Network], Any]] = {
    "exact, eigenvalues and shares": exact(),
    "exact, with knockouts": exact("subtraction"),
    "exact, with knockouts of both kinds": exact("subtraction", "projection"),
    f"Lanczos, {STEPS} steps, with knockouts": lanczos,
}


def gradient(network: Network) -> float:
    """Seconds of one gradient of the loss on the training set."""
    parameters = list(network.model.parameters())

    def run() -> None:
        for x, y in network.batches():
            torch.autograd.grad(cross_entropy(network.model(x), y), parameters)

    return clock(run)


def clock(function: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def peak_bytes() -> int:
    """The most memory this process has held so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10


class Estimate(logging.Handler):
    """The last estimate of memory that `repro.curvature.exact` said, in GiB."""

    said = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        self.said = float(record.args[-1]) if record.args else self.said  # type: ignore[index]


def measure(cell: str, method: str, experiment: str) -> dict[str, Any]:
    """One row of the table."""
    torch.set_num_threads(1)
    logger, estimate = logging.getLogger("repro.curvature.exact"), Estimate()
    logger.setLevel(logging.INFO)
    logger.addHandler(estimate)
    name, size, *rest = cell.split(":")
    # of another width nothing is selected, and another name keeps it from being looked for
    width = [f"width={rest[0]}", "training.epochs=1", f"name={experiment}-width{rest[0]}"] if rest else []
    overrides = [f"experiment={experiment}", f"model={name}", f"n_per_class={size}", *width]
    config = Composer(overrides, (), CONF).config
    network, origin = selected_network(retrain_task(config), find_device(config.device))
    gradient(network)
    before, base = gradient(network), peak_bytes()
    found: list[Any] = []
    seconds = clock(lambda: found.append(METHODS[method](network)))
    unit = (before + gradient(network)) / 2
    N, C = len(network.train.labels), network.classes
    trace = float(found[0].trace) if hasattr(found[0], "trace") else float("nan")
    return {
        "network": name, "n_per_class": int(size), "width": float(rest[0]) if rest else config.width, "origin": origin,
        "rows": N * (C - 1), "parameters": sum(p.numel() for p in network.model.parameters()), "method": method,
        "seconds": round(seconds, 2), "gradients": round(seconds / unit, 1), "gradient_seconds": round(unit, 4),
        "peak_MiB": round((peak_bytes() - base) / 2**20), "estimate_MiB": round(1024 * estimate.said) or None,
        "trace": float(f"{trace:.6g}"),
    }  # fmt: skip


def exponents(table: pd.DataFrame) -> pd.DataFrame:
    """The power of the number of rows with which seconds grow, between each size of a network and the next."""
    lines = []
    for (network, method), group in table[table.width != 1].groupby(["network", "method"], sort=False):
        for (_, a), (_, b) in zip(group.iterrows(), group.iloc[1:].iterrows()):
            power = np.log(b.seconds / a.seconds) / np.log(b.rows / a.rows)
            lines.append((network, method, int(a.rows), int(b.rows), round(float(power), 2)))
    return pd.DataFrame(lines, columns=["network", "method", "rows", "to", "exponent"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["mlp:10", "mlp:19", "vgg11:10", "vgg11:19", "vgg11:10:1"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--experiment", default="embedded")
    parser.add_argument("--out", type=Path, required=True, help="csv file")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    made = provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu"), 0)
    facts = {key: made[key] for key in ("device", "torch")} | {"threads": 1, "date": datetime.date.today().isoformat()}
    rows: list[dict[str, Any]] = []
    for cell in args.cells:
        for method in args.methods:
            with multiprocessing.get_context("spawn").Pool(1) as own:
                rows.append(own.apply(measure, (cell, method, args.experiment)) | facts)
            pd.DataFrame(rows).to_csv(args.out, index=False)  # after each row: the next may take long
            print(pd.DataFrame(rows[-1:]).iloc[:, :13].to_string(header=len(rows) == 1, index=False), flush=True)
    print(exponents(pd.DataFrame(rows)).to_string(index=False))


if __name__ == "__main__":
    main()
