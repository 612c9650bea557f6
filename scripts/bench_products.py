"""Time of one Hessian or Gauss-Newton product in gradients: ours against other packages, networks of full size.

python scripts/bench_products.py --networks mlp resnet18 vgg11 --batches 1 4 --out docs/benchmarks/products.csv

One gradient is a forward and backward pass over the same batches, timed just before each product: the ratio is of these
two, so that a slow moment of the machine meets both. Each product is compared with ours before it is timed. Methods are
made one after the other: the peak memory of each is its own (on a GPU; what the process held before is taken off).
With --precision tf32 the gradient and the peers' products round to TF32, as PyTorch allows on a GPU; ours never do.
Peers that are not installed are left out: curvlinops-for-pytorch, hessian-eigenthings, pyhessian.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import gc
import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian, HessianResidual
from repro.models import Architecture
from repro.pipeline.composition import Composer
from repro.pipeline.config import CONF
from repro.storage.provenance import provenance

Data = list[tuple[Tensor, Tensor]]
Product = Callable[[Tensor], Any]  # v [P] -> whatever the package returns
Makers = dict[tuple[str, str], Callable[[], Product]]  # by matrix and method

EXAMPLES = {"mlp": 256, "resnet18": 16, "vgg11": 16, "densenet40": 16}  # a batch
FLOOR = {"Hessian": 2.0, "Gauss-Newton": 4 / 3}  # gradients, by matrix products of a linear layer; graphs kept
SAME = {"ieee": 1e-3, "tf32": 1.0}  # largest difference from ours, relative: TF32's is reported, not judged
OURS = {"Hessian": Hessian, "Gauss-Newton": GaussNewton, "residual": HessianResidual}
PEERS = {"curvlinops": "curvlinops-for-pytorch", "hessian_eigenthings": "hessian-eigenthings", "pyhessian": "PyHessian"}
LOSS = nn.CrossEntropyLoss()


def ours(model: nn.Module, data: Data) -> Makers:
    def make(kind: str, budget: int) -> Product:
        return OURS[kind](model, data, memory_budget=budget).__matmul__

    budgets = {"graphs kept": 1 << 40, "nothing kept": 0}
    return {(kind, f"ours, {what}"): partial(make, kind, budget) for kind in OURS for what, budget in budgets.items()}


def double_backward(model: nn.Module, data: Data) -> Makers:
    """torch's own: the graphs of the gradients kept, and rebuilt in each product."""
    parameters = list(model.parameters())

    def graph(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(LOSS(model(x), y), parameters, create_graph=True)

    def product(graphs: Any, v: Tensor) -> Tensor:
        pieces = split(v, parameters)
        parts = (flat(torch.autograd.grad(g, parameters, pieces, retain_graph=True)) for g in graphs)
        return sum(parts, torch.zeros_like(v)) / len(data)

    def keep() -> Product:
        kept = [graph(x, y) for x, y in data]
        return lambda v: product(kept, v)

    return {
        ("Hessian", "double backward, graphs kept"): keep,
        ("Hessian", "double backward"): lambda: lambda v: product((graph(x, y) for x, y in data), v),
    }


def curvlinops(model: nn.Module, data: Data) -> Makers:
    def make(kind: str) -> Product:
        import curvlinops

        operators = {"Hessian": curvlinops.HessianLinearOperator, "Gauss-Newton": curvlinops.GGNLinearOperator}
        examples = sum(len(x) for x, _ in data)
        arguments = (model, LOSS, list(model.parameters()), data)
        return operators[kind](*arguments, check_deterministic=False, num_data=examples).__matmul__

    return {(kind, "curvlinops"): partial(make, kind) for kind in FLOOR}


def hessian_eigenthings(model: nn.Module, data: Data) -> Makers:
    def make(kind: str) -> Product:
        from hessian_eigenthings import loss_fns, operators

        if kind == "Hessian":
            return operators.HessianOperator(model, data, loss_fns.supervised_loss(LOSS)).matvec
        loss = loss_fns.supervised_loss_of_output(LOSS)
        return operators.GGNOperator(model, data, loss_fns.supervised_forward, loss).matvec

    return {(kind, "hessian-eigenthings"): partial(make, kind) for kind in FLOOR}


def pyhessian(model: nn.Module, data: Data) -> Makers:
    cuda = data[0][0].is_cuda

    def over_loader() -> Product:
        from pyhessian import hessian

        loader = hessian(model, LOSS, dataloader=data, cuda=cuda)
        return lambda v: loader.dataloader_hv_product(split(v, loader.params))[1]

    def single() -> Product:
        from pyhessian import hessian
        from pyhessian.utils import hessian_vector_product

        one = hessian(model, LOSS, data=data[0], cuda=cuda)
        return lambda v: hessian_vector_product(one.gradsH, one.params, split(v, one.params))

    found: Makers = {("Hessian", "pyhessian"): over_loader}
    return found | ({("Hessian", "pyhessian, single batch"): single} if len(data) == 1 else {})


def split(v: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    return [piece.view_as(p) for piece, p in zip(v.split([p.numel() for p in parameters]), parameters)]


def flat(product: Any) -> Tensor:  # -> [P]
    return (
        product.detach() if isinstance(product, Tensor) else torch.cat([piece.detach().flatten() for piece in product])
    )


def gradient(model: nn.Module, data: Data) -> Callable[[], None]:
    def run() -> None:
        model.zero_grad()
        for x, y in data:
            LOSS(model(x), y).backward()

    return run


def problem(
    name: str, batches: int, device: torch.device, batch: int | None = None, width: float = 1.0
) -> tuple[nn.Module, Data]:
    """The paper's network for one channel and ten classes, freshly initialised; inputs and labels at random."""
    torch.manual_seed(0)
    config = Composer([f"model={name}", f"width={width}"], (), CONF).config
    model = Architecture.from_keys(config.model).build(channels=1, classes=10, side=32).eval().to(device)
    shape = batch or EXAMPLES[name], 1, 32, 32
    data = [(torch.randn(shape), torch.randint(10, shape[:1])) for _ in range(batches)]
    return model, [(x.to(device), y.to(device)) for x, y in data]


def methods(model: nn.Module, data: Data) -> Makers:
    """Every way to multiply by the Hessian or its parts, those of peers where they are installed; ours first."""
    found = ours(model, data) | double_backward(model, data)
    for package, make in (
        ("curvlinops", curvlinops),
        ("hessian_eigenthings", hessian_eigenthings),
        ("pyhessian", pyhessian),
    ):
        if importlib.util.find_spec(package):
            found |= make(model, data)
        else:
            print(f"{PEERS[package]} is not installed: left out")
    return found


def clock(function: Callable[..., Any], device: torch.device, *arguments: Tensor) -> float:
    """Seconds one call takes."""
    begin = time.perf_counter()
    function(*arguments)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """float32 matrix products and convolutions in TF32 on a GPU, or in float32 ("ieee")."""
    backends: Any = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = precision
        yield
    finally:
        for backend, value in zip(backends, before):
            backend.fp32_precision = value


def compare(
    name: str,
    batches: int,
    device: torch.device,
    repeats: int,
    *,
    batch: int | None = None,
    width: float = 1.0,
    precision: str = "ieee",
) -> Iterator[dict[str, Any]]:
    """One row a method, in gradients: median and quartiles over rounds, and the ratio of the fastest times.

    Raises:
        ValueError: a package's product differs from ours.
    """
    model, data = problem(name, batches, device, batch, width)
    v = torch.randn(sum(p.numel() for p in model.parameters()), device=device)
    base = gradient(copy.deepcopy(model), data)
    facts = {"network": name, "parameters": len(v), "batches": batches, "batch": len(data[0][0])}
    facts["precision"] = precision
    expected: dict[str, Tensor] = {}
    with products_in(precision):
        base()
        for (kind, method), make in methods(copy.deepcopy(model), data).items():
            if precision == "tf32" and method.startswith("ours"):  # they are float32 all the same
                if kind in FLOOR and kind not in expected:
                    expected[kind] = flat(make()(v))
                continue
            with memory(device) as used:
                product = make()
                found = flat(product(v))  # also the warm-up
                expected.setdefault(kind, found)
                difference = float((found - expected[kind]).norm() / expected[kind].norm())
                if not difference < SAME[precision]:
                    raise ValueError(f"{method}: the {kind} product differs from ours by {difference:.1e} of its norm")
                times = [
                    {"gradient": clock(base, device), "product": clock(product, device, v)} for _ in range(repeats)
                ]
            numbers = summary(pd.DataFrame(times)) | {
                "floor": FLOOR.get(kind),
                "difference": float(f"{difference:.1e}"),
            }
            yield {**facts, "matrix": kind, "method": method, **numbers, "peak_MiB": used.get("peak_MiB")}
            del product


@contextmanager
def memory(device: torch.device) -> Iterator[dict[str, int]]:
    """What is allocated on a GPU inside at most, beyond what was before; nothing on a CPU."""
    found: dict[str, int] = {}
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    yield found
    if device.type == "cuda":
        found["peak_MiB"] = (torch.cuda.max_memory_allocated(device) - before) >> 20


def summary(times: pd.DataFrame) -> dict[str, float]:
    ratio = times["product"] / times["gradient"]
    found = {
        "gradients_median": ratio.median(),
        "gradients_lower": ratio.quantile(0.25),
        "gradients_upper": ratio.quantile(0.75),
        "gradients_of_minima": times["product"].min() / times["gradient"].min(),
        "milliseconds": 1000 * times["product"].median(),
        "gradient_milliseconds": 1000 * times["gradient"].median(),
    }
    return {key: round(float(value), 3) for key, value in found.items()} | {"rounds": len(times)}


def markdown(table: pd.DataFrame) -> str:
    """One row a method, one column a network: median [quartiles] in gradients."""
    table = table.assign(
        row=table.matrix + " | " + table.method,
        column=[f"{r.network}, {r.batches} x {r.batch}, {r.precision}" for r in table.itertuples()],
        cell=[
            f"{r.gradients_median:.2f} [{r.gradients_lower:.2f}, {r.gradients_upper:.2f}]" for r in table.itertuples()
        ],
    )
    wide = table.pivot(index="row", columns="column", values="cell").fillna("-")
    wide = wide.loc[table.row.unique(), table.column.unique()]
    lines = [
        "| matrix | method | " + " | ".join(wide.columns) + " |",
        "|---|---" + "|---" * len(wide.columns) + "|",
    ]
    return "\n".join(lines + [f"| {row} | " + " | ".join(cells) + " |" for row, cells in zip(wide.index, wide.values)])


def versions(device: torch.device) -> dict[str, Any]:
    """Where, when and with which packages a table was made."""
    made = provenance(device, 0)
    peers = {package: version(PEERS[package]) for package in PEERS if importlib.util.find_spec(package)}
    found = {key: made[key] for key in ("device", "threads", "torch")} | peers
    return found | {"date": datetime.date.today().isoformat()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["mlp", "resnet18", "vgg11"], choices=list(EXAMPLES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--batch", type=int, help="examples a batch; by default some that a CPU takes a second for")
    parser.add_argument("--precision", nargs="+", default=["ieee"], choices=list(SAME))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True, help="csv file")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    facts = versions(device)
    rows: list[dict[str, Any]] = []
    for name in args.networks:
        for batches in args.batches:
            for precision in args.precision:
                for row in compare(name, batches, device, args.repeats, batch=args.batch, precision=precision):
                    rows.append({**row, **facts})
                    pd.DataFrame(rows).to_csv(args.out, index=False)  # after each method: the next may take long
    print(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
