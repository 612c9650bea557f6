"""Time and memory of all class and cross-class means, and what a hundred classes cost by slices of the parameters.

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
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from repro import models
from repro.curvature.cross_class import SPANNED_PARTS, sliced_gram, slices
from repro.curvature.gradients import by_class, cross_class_sums
from repro.curvature.risk import Parameters
from repro.provenance import provenance

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
    settings = OmegaConf.load(Path(__file__).parents[1] / "conf" / "model" / f"{name}.yaml")
    model = models.build(channels=channels, classes=classes, **{**settings, "width": width}).eval()
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


def time_slices(budget: int, parameters: str, setting: dict[str, Any]) -> dict[str, Any]:
    """All slices of one layer of a network with many classes: exact eigenvalues of that block's parts."""
    model, data = problem(**setting)
    gradient(model, data)
    unit, base = clock(lambda: gradient(model, data))[0], peak_mebibytes()
    seconds, gram = clock(lambda: sliced_gram(model, data, memory_budget=budget, parameters=parameters))
    peak = peak_mebibytes() - base
    solving, found = clock(lambda: {part: gram.eigenvalues(part) for part in SPANNED_PARTS})
    return {
        "gradients": round(seconds / unit, 1),
        "seconds": round(seconds, 2),
        "gradient_seconds": round(unit, 3),
        "peak_MiB": round(peak),
        "means_MiB": round(4 * setting["classes"] ** 2 * Parameters(model, parameters).dim / 2**20),
        "parameters": Parameters(model, parameters).dim,
        "slices": len(slices(model, data, memory_budget=budget, parameters=parameters)),
        "eigenvalue_seconds": round(solving, 2),
        "largest_eigenvalues": " ".join(f"{part}={float(values[0]):.3g}" for part, values in found.items()),
    }


def plan(parameters: int, classes: int, budget: int) -> str:
    """What all eigenvalues of G_class and G_cross cost: passes, gradients at most, operations, memory."""
    size = budget // (4 * classes**2)
    passes = -(-parameters // size)
    gradients = passes * (1 + 2 * classes) / 3
    operations = classes**4 * parameters  # half of the products, two operations each
    return (
        f"P = {parameters:,}, C = {classes}, {budget / 2**30:.0f} GiB for the means: {passes} passes of up to "
        f"{(1 + 2 * classes) / 3:.0f} gradients (slices near the output cost less), {gradients:,.0f} gradients in all, "
        f"{operations / 1e12:,.0f} Tflop for inner products, {2 * 8 * classes**4 / 2**30:.1f} GiB for the result"
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
    parser.add_argument("--problem", choices=["means", "slices", "both"], default="both")
    parser.add_argument("--width", type=float, default=0.25, help="of the VGG11 with ten classes")
    parser.add_argument("--examples", type=int, default=640, help="with ten classes")
    parser.add_argument("--budget", type=float, default=0.5e9, help="bytes for the means of a hundred classes")
    parser.add_argument("--parameters", default="head", help="layer of the ResNet18 with a hundred classes")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    ten = {"name": "vgg11", "width": args.width, "channels": 1, "classes": 10, "examples": args.examples, "batch": 128}
    hundred = {"name": "resnet18", "width": 1.0, "channels": 3, "classes": 100, "examples": 100, "batch": 100}
    rows: list[dict[str, Any]] = []
    if args.problem != "slices":
        rows += means(ten)
    if args.problem != "means":
        row = alone(time_slices, int(args.budget), args.parameters, hundred)
        rows.append({"problem": f"slices of {args.parameters}", "method": "ours", **hundred, **row})
    made = provenance("cuda" if torch.cuda.is_available() else "cpu", 0)
    facts = {key: made[key] for key in ("device", "torch")}
    table = pd.DataFrame(rows).assign(**facts, threads=torch.get_num_threads(), date=datetime.date.today().isoformat())
    print(markdown(table.drop(columns=["device", "threads", "torch", "date"])))
    for budget in (8 << 30, 40 << 30):
        for network, P in (("VGG11", 28_526_436), ("ResNet18", 11_220_132)):
            print(f"- CIFAR100, {network}: {plan(P, 100, budget)}")
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(args.out, index=False)


if __name__ == "__main__":
    main()
