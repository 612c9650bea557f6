"""Products and seconds to the top eigenpairs of trained networks' Hessians: ours against other solvers.

python scripts/bench_eigenpairs.py --networks mlp vgg11 --n-per-class 10 --out docs/benchmarks/eigenpairs.csv

Networks are the selected ones of --experiment, or trained here (at its middle learning rate) where there is none yet.
Products are counted by the operator. Every solver is asked for a relative residual |A q - lambda q| / |lambda| of 1e-3,
except subspace iteration, which runs the paper's fixed number; the residual reached is measured afterwards, uncounted.
"""

from __future__ import annotations

import argparse
import datetime
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy
import torch
from scipy.sparse import linalg as sparse
from torch import Tensor

from repro.curvature.hessian import Hessian
from repro.linalg.eigenpairs import top_eigenpairs
from repro.linalg.operator import LinearOperator
from repro.linalg.subspace import subspace_iteration
from repro.network import Network
from repro.pipeline.composition import Composer
from repro.pipeline.config import CONF, Config
from repro.pipeline.devices import find_device
from repro.pipeline.experiment import retrain_task
from repro.pipeline.stages.retrain import Retrain
from repro.pipeline.trained import build, load_splits, network_of
from repro.storage.provenance import provenance
from repro.training import train_block

TOLERANCE = 1e-3
AMPLE = 1 << 40  # bytes of basis: never restart

Pairs = tuple[Tensor, Tensor]  # eigenvalues [K], vectors [P, K]
Solver = Callable[[LinearOperator, int, int, float], Pairs]  # A, k, seed, |lambda_k|


def lanczos(A: LinearOperator, k: int, seed: int, kth: float, memory_budget: int = AMPLE) -> Pairs:
    return top_eigenpairs(A, k, tolerance=TOLERANCE, max_products=1000, memory_budget=memory_budget, seed=seed)[:2]


def restarted(A: LinearOperator, k: int, seed: int, kth: float) -> Pairs:
    """A basis of 2 k + 1 vectors, as many as eigsh keeps."""
    return lanczos(A, k, seed, kth, (2 * k + 1) * A.dim * torch.finfo(A.dtype).bits // 8)


def subspace(A: LinearOperator, k: int, seed: int, kth: float) -> Pairs:
    return subspace_iteration(A, k, iterations=128, seed=seed)[:2]


def eigsh(A: LinearOperator, k: int, seed: int, kth: float) -> Pairs:
    start = np.random.default_rng(seed).standard_normal(A.dim).astype(np.float32)
    return to_torch(A, sparse.eigsh(for_scipy(A), k, which="LM", tol=TOLERANCE, v0=start))


def lobpcg(A: LinearOperator, k: int, seed: int, kth: float) -> Pairs:
    """Algebraically largest instead of by magnitude; its tolerance is absolute, so it is told |lambda_k|.

    In float32 it loses the eigenvectors for some seeds, so its own arithmetic is in float64.
    """
    start = np.random.default_rng(seed).standard_normal((A.dim, k))
    return to_torch(A, sparse.lobpcg(for_scipy(A, np.float64), start, tol=TOLERANCE * kth, maxiter=200, largest=True))


SOLVERS: dict[str, Solver] = {
    "Lanczos, full reorthogonalisation (ours)": lanczos,
    "Lanczos, thick restart at 21 vectors (ours)": restarted,
    "eigsh (scipy)": eigsh,
    "LOBPCG (scipy)": lobpcg,
    "subspace iteration, T = 128 (the paper)": subspace,
}


def for_scipy(A: LinearOperator, dtype: type = np.float32) -> sparse.LinearOperator:
    def multiply(V: np.ndarray) -> np.ndarray:
        return (A @ torch.from_numpy(V).to(A.device, A.dtype)).cpu().numpy().astype(dtype)

    return sparse.LinearOperator((A.dim, A.dim), matvec=multiply, matmat=multiply, dtype=dtype)


def to_torch(A: LinearOperator, pairs: tuple[np.ndarray, np.ndarray]) -> Pairs:
    values, vectors = (torch.from_numpy(part).to(A.device, A.dtype) for part in pairs)
    return values, vectors


def network(task: Retrain, device: str) -> tuple[Network, str]:
    """The selected network of a cell, or one trained now; the second says which."""
    try:
        return task.network(device), "selected"
    except FileNotFoundError:
        of, found = task.trainings, []
        rate = of.rates.rate(of.rates.count // 2)
        train_block(
            lambda: build(of),
            *load_splits(of, task.machine, device),
            [rate],
            of.recipe,
            on_checkpoint=lambda index, epoch, model: found.append(model),
            checkpoint_epochs=[of.recipe.epochs],
        )
        return network_of(found[0].eval(), of, task.machine, device), f"trained here at {rate:.2g}"


def attempt(A: LinearOperator, solver: Solver, k: int, seed: int, kth: float) -> dict[str, float]:
    """Products, seconds and the worst relative residual of one run."""
    A.products, begin = 0, time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LOBPCG warns of what the residual says
        values, vectors = solver(A, k, seed, kth)
    products, seconds = A.products, time.perf_counter() - begin
    residuals = (A @ vectors - vectors * values).norm(dim=0) / values.abs()
    return {"products": products, "seconds": seconds, "residual": float(residuals.max())}


def compare(name: str, config: Config, repeats: int) -> list[dict[str, Any]]:
    """One row per solver; the solvers take turns, so that a slow moment of the machine meets all."""
    measured, origin = network(retrain_task(config), find_device(config.device))
    A, k, train = Hessian(measured.model, measured.batches()), measured.classes, measured.train
    kth = float(lanczos(A, k, 0, 0.0)[0].abs()[-1])  # also the warm-up
    runs: dict[str, list[dict[str, float]]] = {solver: [] for solver in SOLVERS}
    for seed in range(repeats):
        for solver, function in SOLVERS.items():
            if function is not subspace or seed == 0:  # 1280 products, whatever the seed
                runs[solver].append(attempt(A, function, k, seed, kth))
    facts = {"network": name, "origin": origin, "parameters": A.dim, "examples": len(train.labels), "eigenpairs": k}
    return [{**facts, "solver": solver, **summary(pd.DataFrame(of))} for solver, of in runs.items()]


def summary(runs: pd.DataFrame) -> dict[str, Any]:
    """Median and range of products and seconds; the worst residual, and how many runs missed the tolerance."""
    spread = {
        f"{column}_{how}": round(float(getattr(runs[column], how)()), 3)
        for column in ("products", "seconds")
        for how in ("median", "min", "max")
    }
    missed = int((runs.residual > TOLERANCE).sum())
    return {
        "runs": len(runs),
        "missed_tolerance": missed,
        **spread,
        "worst_residual": float(f"{runs.residual.max():.2g}"),
    }


def markdown(table: pd.DataFrame) -> str:
    """The table for people: median [range]."""
    lines = ["| network | solver | products | seconds | worst residual |", "|---|---|---|---|---|"]
    for _, row in table.iterrows():
        products = f"{row.products_median:.0f} [{row.products_min:.0f}, {row.products_max:.0f}]"
        seconds = f"{row.seconds_median:.2f} [{row.seconds_min:.2f}, {row.seconds_max:.2f}]"
        network = f"{row.network}, P = {row.parameters}"
        lines.append(f"| {network} | {row.solver} | {products} | {seconds} | {row.worst_residual:.1e} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="embedded")
    parser.add_argument("--networks", nargs="+", default=["mlp", "vgg11"])
    parser.add_argument("--n-per-class", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="csv file")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in args.networks:
        overrides = [f"experiment={args.experiment}", f"model={name}", f"n_per_class={args.n_per_class}"]
        config = Composer(overrides, (), CONF).config
        made = provenance(find_device(config.device), 0)
        machine = {key: made[key] for key in ("code", "device", "threads", "torch")}
        versions = {**machine, "scipy": scipy.__version__, "date": datetime.date.today().isoformat()}
        rows += [{**row, **versions} for row in compare(name, config, args.repeats)]
        pd.DataFrame(rows).to_csv(args.out, index=False)  # after each network: the next may take long
    print(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
