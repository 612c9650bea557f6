"""Time of one Hessian or Gauss-Newton product in gradients: ours against other packages, networks of full size.

python scripts/bench_products.py --networks mlp resnet18 vgg11 --batches 1 4 --out docs/benchmarks/products.csv

One gradient is a forward and backward pass over the same batches, timed just before each product: the ratio is of these
two, so that a slow moment of the machine meets both. Each product is compared with ours before it is timed.
Peers that are not installed are left out: curvlinops-for-pytorch, hessian-eigenthings, pyhessian.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import importlib.util
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian, HessianResidual
from repro.models import Architecture
from repro.pipeline.composition import CONF, Composer
from repro.storage.provenance import provenance

Data = list[tuple[Tensor, Tensor]]
Product = Callable[[Tensor], Any]  # v [P] -> whatever the package returns

EXAMPLES = {"mlp": 256, "resnet18": 16, "vgg11": 16, "densenet40": 16}  # a batch
OURS = {"Hessian": Hessian, "Gauss-Newton": GaussNewton, "residual": HessianResidual}
PEERS = {"curvlinops": "curvlinops-for-pytorch", "hessian_eigenthings": "hessian-eigenthings", "pyhessian": "PyHessian"}
LOSS = nn.CrossEntropyLoss()


def ours(model: nn.Module, data: Data) -> dict[tuple[str, str], Product]:
    ample = 1 << 40
    return {
        (kind, f"ours, {what}"): make(model, data, memory_budget=budget).__matmul__
        for kind, make in OURS.items()
        for what, budget in (("graphs kept", ample), ("nothing kept", 0))
    }


def double_backward(model: nn.Module, data: Data) -> dict[tuple[str, str], Product]:
    """torch's own: the graphs of the gradients kept, and rebuilt in each product."""
    parameters = list(model.parameters())

    def graph(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(LOSS(model(x), y), parameters, create_graph=True)

    def product(graphs: Any, v: Tensor) -> Tensor:
        pieces = split(v, parameters)
        parts = (flat(torch.autograd.grad(g, parameters, pieces, retain_graph=True)) for g in graphs)
        return sum(parts, torch.zeros_like(v)) / len(data)

    kept = [graph(x, y) for x, y in data]
    return {
        ("Hessian", "double backward, graphs kept"): lambda v: product(kept, v),
        ("Hessian", "double backward"): lambda v: product((graph(x, y) for x, y in data), v),
    }


def curvlinops(model: nn.Module, data: Data) -> dict[tuple[str, str], Product]:
    import curvlinops

    examples = sum(len(x) for x, _ in data)
    makers = {"Hessian": curvlinops.HessianLinearOperator, "Gauss-Newton": curvlinops.GGNLinearOperator}
    arguments = (model, LOSS, list(model.parameters()), data)
    return {
        (kind, "curvlinops"): make(*arguments, check_deterministic=False, num_data=examples).__matmul__
        for kind, make in makers.items()
    }


def hessian_eigenthings(model: nn.Module, data: Data) -> dict[tuple[str, str], Product]:
    from hessian_eigenthings import loss_fns, operators

    H = operators.HessianOperator(model, data, loss_fns.supervised_loss(LOSS))
    G = operators.GGNOperator(model, data, loss_fns.supervised_forward, loss_fns.supervised_loss_of_output(LOSS))
    return {("Hessian", "hessian-eigenthings"): H.matvec, ("Gauss-Newton", "hessian-eigenthings"): G.matvec}


def pyhessian(model: nn.Module, data: Data) -> dict[tuple[str, str], Product]:
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    cuda = data[0][0].is_cuda
    loader = hessian(model, LOSS, dataloader=data, cuda=cuda)
    found: dict[tuple[str, str], Product] = {
        ("Hessian", "pyhessian"): lambda v: loader.dataloader_hv_product(split(v, loader.params))[1]
    }
    if len(data) == 1:
        one = hessian(copy.deepcopy(model), LOSS, data=data[0], cuda=cuda)
        key = ("Hessian", "pyhessian, single batch")
        found[key] = lambda v: hessian_vector_product(one.gradsH, one.params, split(v, one.params))
    return found


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


def problem(name: str, batches: int, device: torch.device) -> tuple[nn.Module, Data]:
    """The paper's network for one channel and ten classes, freshly initialised; inputs and labels at random."""
    torch.manual_seed(0)
    config = Composer([f"model={name}", "width=1"], (), CONF).config
    model = Architecture.from_keys(config.model).build(channels=1, classes=10, side=32).eval().to(device)
    shape = EXAMPLES[name], 1, 32, 32
    data = [(torch.randn(shape), torch.randint(10, shape[:1])) for _ in range(batches)]
    return model, [(x.to(device), y.to(device)) for x, y in data]


def products(model: nn.Module, data: Data) -> dict[tuple[str, str], Product]:
    """Every way to multiply by the Hessian or its parts, those of peers where they are installed."""
    rows = ours(model, data) | double_backward(copy.deepcopy(model), data)
    for package, make in (
        ("curvlinops", curvlinops),
        ("hessian_eigenthings", hessian_eigenthings),
        ("pyhessian", pyhessian),
    ):
        if importlib.util.find_spec(package):
            rows |= make(copy.deepcopy(model), data)
        else:
            print(f"{PEERS[package]} is not installed: left out")
    return rows


def check(rows: dict[tuple[str, str], Product], v: Tensor) -> None:
    """Also the warm-up.

    Raises:
        ValueError: a package's product differs from ours.
    """
    for (kind, method), product in rows.items():
        expected = flat(rows[kind, "ours, graphs kept"](v))
        difference = float((flat(product(v)) - expected).norm() / expected.norm())
        if not difference < 1e-3:
            raise ValueError(f"{method}: the {kind} product differs from ours by {difference:.1e} of its norm")


def clock(function: Callable[..., Any], device: torch.device, *arguments: Tensor) -> float:
    """Seconds one call takes."""
    begin = time.perf_counter()
    function(*arguments)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def compare(name: str, batches: int, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """One row a method, in gradients: median and quartiles over rounds, and the ratio of the fastest times."""
    model, data = problem(name, batches, device)
    rows = products(model, data)
    v = torch.randn(sum(p.numel() for p in model.parameters()), device=device)
    check(rows, v)
    base = gradient(copy.deepcopy(model), data)
    base()
    facts = {"network": name, "parameters": len(v), "batches": batches, "batch": EXAMPLES[name]}
    times: dict[tuple[str, str], list[dict[str, float]]] = {key: [] for key in rows}
    for _ in range(repeats):
        for key, product in rows.items():
            unit = clock(base, device)
            times[key].append({"gradient": unit, "product": clock(product, device, v)})
    return [{**facts, "matrix": key[0], "method": key[1], **summary(pd.DataFrame(of))} for key, of in times.items()]


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
        column=table.network + ", " + table.batches.astype(str) + " x " + table.batch.astype(str),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["mlp", "resnet18", "vgg11"], choices=list(EXAMPLES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True, help="csv file")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    made = provenance(device, 0)
    peers = {package: version(PEERS[package]) for package in PEERS if importlib.util.find_spec(package)}
    facts = {key: made[key] for key in ("device", "threads", "torch")} | peers
    facts["date"] = datetime.date.today().isoformat()
    rows: list[dict[str, Any]] = []
    for name in args.networks:
        for batches in args.batches:
            rows += [{**row, **facts} for row in compare(name, batches, device, args.repeats)]
            pd.DataFrame(rows).to_csv(args.out, index=False)  # after each network: the next may take long
    print(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
