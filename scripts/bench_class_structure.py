"""Time and memory of all class and cross-class means, and what a hundred classes cost.

python scripts/bench_class_structure.py --out docs/benchmarks/class_structure.csv

One gradient is a forward and backward pass over the same batches, timed around each method. Each method runs in a
process of its own, so that its peak memory is its own. The released code's algorithm is written here from its
description: a forward pass of each mixed batch, then a backward pass through all of it for every pair (c, c').
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from repro.curvature.cross_class import SPANNED_PARTS
from repro.curvature.gradients import by_class, cross_class_sums
from repro.curvature.many_classes import class_gram, plan_passes
from repro.curvature.risk import Parameters
from repro.models import Architecture
from repro.pipeline.composition import Composer
from repro.pipeline.config import CONF
from repro.storage.provenance import provenance

Data = list[tuple[Tensor, Tensor]]


def ours(model: nn.Module, data: Data, classes: int) -> Tensor:  # -> [C, C, P]
    return cross_class_sums(model, data).sums


def together(model: nn.Module, data: Data, classes: int) -> Tensor:  # -> [C, C, P]
    """The C backward passes of a batch in one call, batched by torch (vmap)."""
    layout = Parameters(model)
    sums = torch.zeros(classes, classes, layout.dim, device=data[0][0].device)
    for c, x in by_class(data):
        logits = model(x)
        p = logits.detach().softmax(dim=1)
        cotangents = p.T[:, :, None] * (p - torch.eye(classes, device=p.device)[:, None])  # [C, B, C]
        gradients = torch.autograd.grad(logits, list(model.parameters()), cotangents, is_grads_batched=True)
        sums[c] += torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)
    return sums / sum(len(x) for x, _ in data)


def released(model: nn.Module, data: Data, classes: int) -> Tensor:  # -> [C, C, P]
    """The released code's algorithm: C² backward passes through each mixed batch."""
    layout = Parameters(model)
    sums = torch.zeros(classes, classes, layout.dim, device=data[0][0].device)
    for x, y in data:
        logits = model(x)
        p = logits.detach().softmax(dim=1)
        for c in y.unique().tolist():
            own = logits[y == c]
            for k in range(classes):
                w = p[y == c, k, None] * (p[y == c] - one_hot(torch.tensor(k, device=p.device), classes))
                sums[c, k] += layout.flatten(torch.autograd.grad(own, list(model.parameters()), w, retain_graph=True))
    return sums / sum(len(x) for x, _ in data)


METHODS = {"ours": ours, "C passes in one call (vmap)": together, "released code's algorithm": released}


def problem(name: str, width: float, channels: int, classes: int, examples: int, batch: int) -> tuple[nn.Module, Data]:
    """A freshly initialised network; inputs at random, labels in turn."""
    torch.manual_seed(0)
    config = Composer([f"model={name}", f"width={width}"], (), CONF).config
    model = Architecture.from_keys(config.model).build(channels=channels, classes=classes, side=32).eval()
    x, y = torch.randn(examples, channels, 32, 32), torch.arange(examples) % classes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device), [(a.to(device), b.to(device)) for a, b in zip(x.split(batch), y.split(batch))]


def clock(function: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin, result


def gradient(model: nn.Module, data: Data) -> None:
    for x, y in data:
        torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))


def peak_mebibytes() -> float:
    """The most memory this process has held so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def time_means(method: str, setting: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """One row of the table, and the sums along a fixed direction to compare methods by."""
    model, data = problem(**setting)
    classes = setting["classes"]
    gradient(model, data)
    before, base = clock(lambda: gradient(model, data))[0], peak_mebibytes()
    seconds, sums = clock(lambda: METHODS[method](model, data, classes))
    unit = (before + clock(lambda: gradient(model, data))[0]) / 2
    v = torch.randn(sums.shape[2], generator=torch.Generator().manual_seed(1)).to(sums.device)
    row = {
        "gradients": round(seconds / unit, 1),
        "seconds": round(seconds, 2),
        "gradient_seconds": round(unit, 3),
        "peak_MiB": round(peak_mebibytes() - base),
        "means_MiB": round(sums.numel() * sums.element_size() / 2**20),
        "parameters": sums.shape[2],
    }
    return row, (sums @ v).cpu()


def time_gram(budget: int, setting: dict[str, Any]) -> dict[str, Any]:
    """All inner products of the means of a whole network with many classes, and the eigenvalues of the parts."""
    model, data = problem(**setting)
    gradient(model, data)
    unit, base = clock(lambda: gradient(model, data))[0], peak_mebibytes()
    seconds, gram = clock(lambda: class_gram(model, data, memory_budget=budget))
    peak = peak_mebibytes() - base
    pairs = [(0, 0), (0, 1), (7, 7), (7, 0), (99 % setting["classes"], 3)]
    rows, places = direct_rows(model, data, gram.weights, pairs), [c * setting["classes"] + k for c, k in pairs]
    direct = rows.double() @ rows.double().T
    difference = (gram.rows[places][:, places] - direct).norm() / direct.norm()
    solving, found = clock(lambda: {part: gram.eigenvalues(part) for part in SPANNED_PARTS})
    return {
        "gradients": round(seconds / unit, 1),
        "seconds": round(seconds, 2),
        "gradient_seconds": round(unit, 3),
        "peak_MiB": round(peak),
        "means_MiB": round(4 * setting["classes"] ** 2 * Parameters(model).dim / 2**20),
        "parameters": Parameters(model).dim,
        "difference": float(f"{difference:.1e}"),  # of some inner products from those of rows from their definition
        "eigenvalue_seconds": round(solving, 2),
        "largest_eigenvalues": " ".join(f"{part}={float(values[0]):.3g}" for part, values in found.items()),
    }


def direct_rows(model: nn.Module, data: Data, weights: Tensor, pairs: list[tuple[int, int]]) -> Tensor:  # [K, P]
    """√w_c g_c for pairs (c, c) and √w_{c,k} (g_{c,k} − g_c) for others (c, k), each mean by its own backward pass."""
    layout, examples = Parameters(model), sum(len(x) for x, _ in data)

    def weighted_sum(c: int, k: int) -> Tensor:
        total = torch.zeros(layout.dim, device=data[0][0].device)
        for x, y in data:
            if (y == c).any():
                logits = model(x[y == c])
                p = logits.detach().softmax(dim=1)
                w = p[:, k, None] * (p - one_hot(torch.tensor(k, device=p.device), p.shape[1])) / examples
                total += layout.flatten(torch.autograd.grad(logits, list(model.parameters()), w))
        return total

    rows = []
    for c, k in pairs:
        w = float(weights[c].sum() - weights[c, c])
        mean = -weighted_sum(c, c) / w
        rows.append(w**0.5 * mean if k == c else (weighted_sum(c, k) / weights[c, k] - mean) * weights[c, k] ** 0.5)
    return torch.stack([row.float() for row in rows])


def plan(setting: dict[str, Any], budget: int) -> str:
    """What the inner products of all means cost within a budget [bytes]: passes over the data and operations."""
    model, data = problem(**setting)
    C, n = setting["classes"], setting["examples"] // setting["classes"]
    passes = plan_passes(model, data, torch.full((C,), n), memory_budget=budget)
    rest = passes.slices[-1][1] if passes.slices else 0
    layers = {name: sizes for group in passes.layers for name, sizes in group.items()}
    factored = sum(n * T * (1 + n * T / C) * outputs for T, _, outputs in layers.values())
    P, count = Parameters(model).dim, len(passes.layers) + len(passes.slices)
    return (
        f"{setting['name']}, C = {C}, n = {n}, {budget / 2**30:.0f} GiB: {count} passes of up to {(1 + 2 * C) / 3:.0f} "
        f"gradients; {len(layers)} layers by errors and features, {rest:,} of {P:,} parameters by slices; "
        f"{C**4 * (rest + factored) / 1e12:,.0f} Tflop for inner products, {C**4 * P / 1e12:,.0f} from the means"
    )


def means(setting: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a method.

    Raises:
        ValueError: the sums of a method differ from ours.
    """
    rows, directions = [], []
    for method in METHODS:
        row, direction = alone(time_means, method, setting)
        rows.append({"problem": "means", "method": method, **setting, **row})
        directions.append(direction)
        difference = float((direction - directions[0]).norm() / directions[0].norm())
        if not difference < 1e-4:
            raise ValueError(f"{method}: the sums differ from ours by {difference:.1e} of their norm")
    return rows


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def markdown(table: pd.DataFrame) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.astype(object).where(table.notna(), "").values]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=["means", "gram", "both"], default="both")
    parser.add_argument("--width", type=float, default=0.25, help="of the VGG11 with ten classes")
    parser.add_argument("--examples", type=int, default=640, help="with ten classes")
    parser.add_argument("--budget", type=float, default=6e9, help="bytes for what a hundred classes hold")
    parser.add_argument(
        "--networks", nargs="+", default=["vgg11", "resnet18"], help="of full size, with a hundred classes"
    )
    parser.add_argument("--n-per-class", type=int, default=2, help="of a hundred classes")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    ten = {"name": "vgg11", "width": args.width, "channels": 1, "classes": 10, "examples": args.examples, "batch": 128}
    hundred = {"width": 1.0, "channels": 3, "classes": 100, "examples": 100 * args.n_per_class, "batch": 25}
    rows: list[dict[str, Any]] = []
    if args.problem != "gram":
        rows += means(ten)
    for name in args.networks if args.problem != "means" else []:
        row = alone(time_gram, int(args.budget), {"name": name, **hundred})
        rows.append({"problem": "gram", "method": "ours", "name": name, **hundred, **row})
    made = provenance("cuda" if torch.cuda.is_available() else "cpu", 0)
    facts = {key: made[key] for key in ("device", "torch")}
    table = pd.DataFrame(rows).assign(**facts, threads=torch.get_num_threads(), date=datetime.date.today().isoformat())
    print(markdown(table.drop(columns=["device", "threads", "torch", "date"])))
    for name in args.networks:
        for n in (args.n_per_class, 10, 136):
            print(f"- {plan({'name': name, **hundred, 'examples': 100 * n}, 40 << 30)}")
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(args.out, index=False)


if __name__ == "__main__":
    main()
