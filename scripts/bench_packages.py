"""What users ask of a network, put to each package: seconds, and how far the answer is off, or why there is none.

python scripts/bench_packages.py --out docs/benchmarks/packages.csv

Every package gets the same model and the same batches (inputs, targets), and is asked as its documentation does it with
its own defaults; those that take a function of the model and a batch are given one. Errors are relative to answers in
float64: eigenvalues whose true residuals are below 1e-6, the exact trace. Packages that are not installed are left out:
curvlinops-for-pytorch (with eigsh of scipy at our tolerance, as it has no eigensolver), hessian-eigenthings, pyhessian.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from bench_eigenpairs import TOLERANCE
from bench_eigenpairs import network as selected
from bench_products import PEERS
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification, GPT2Config, GPT2LMHeadModel

import repro
from repro.pipeline.composition import Composer
from repro.pipeline.config import CONF
from repro.pipeline.experiment import retrain_task
from repro.storage.provenance import provenance

K = 10  # eigenvalues
LEADING_H, LEADING_G, TRACE_G = "10 leading eigenvalues of Hess", "10 leading eigenvalues of G", "trace of G"
Answers = dict[str, Callable[[], Any]]  # by question; an eigenvalue or several, in any order


class Problem(NamedTuple):
    """A network, the batches it is measured on, how it is called, and its loss."""

    name: str
    model: nn.Module
    batches: list[tuple[Any, Tensor]]
    call: Callable[[nn.Module, Any], Tensor]
    loss: nn.Module

    def outputs(self, model: nn.Module, x: Any) -> Tensor:
        """As torch's losses take them: classes before positions."""
        found = self.call(model, x)
        return found.transpose(1, 2) if found.dim() == 3 else found

    def arguments(self) -> dict[str, Any]:
        """What our functions are told beside the model and its batches."""
        return {"logits": self.call} | ({"loss": self.loss} if isinstance(self.loss, nn.MSELoss) else {})

    def copy(self) -> Problem:
        """A package may leave gradients behind."""
        return self._replace(model=copy.deepcopy(self.model))

    def double(self) -> Problem:
        def to_double(x: Any) -> Any:
            return x.double() if isinstance(x, Tensor) and x.dtype.is_floating_point else x

        batches = [(to_double(x), to_double(y)) for x, y in self.batches]
        return self._replace(model=copy.deepcopy(self.model).double(), batches=batches)


class Called(nn.Module):
    """The model as a function of what a batch has as inputs, for packages that know no other call."""

    def __init__(self, problem: Problem):
        super().__init__()
        self.model, self.problem = problem.model, problem

    def forward(self, x: Any) -> Tensor:
        return self.problem.outputs(self.model, x)


def problems(experiment: str) -> Iterator[Problem]:
    """A trained classifier of images, texts of unequal length, the next token, and a regression."""
    config = Composer([f"experiment={experiment}", "model=mlp", "n_per_class=10"], (), CONF).config
    found, origin = selected(retrain_task(config), "cpu")
    plain = lambda model, x: model(x)  # noqa: E731
    yield Problem(f"MLP of the default run, {origin}", found.model, found.batches(), plain, nn.CrossEntropyLoss())

    torch.manual_seed(0)
    small = {"vocab_size": 200, "max_position_embeddings": 16, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}
    tokens, lengths = torch.randint(1, 200, (64, 16)), torch.randint(4, 17, (64, 1))
    texts = {"input_ids": tokens, "attention_mask": (torch.arange(16) < lengths).long()}
    labels = torch.arange(64) % 4
    halves = [({name: part[i : i + 32] for name, part in texts.items()}, labels[i : i + 32]) for i in (0, 32)]
    # torch's fused attention has no second derivative, and the peers fail on it; ours takes it as it is, too
    eager = {"attn_implementation": "eager"}
    bert = DistilBertForSequenceClassification(DistilBertConfig(**small, num_labels=4, **eager)).eval()
    named = lambda model, x: model(**x).logits  # noqa: E731
    yield Problem("DistilBERT, a dictionary of inputs", bert, halves, named, nn.CrossEntropyLoss())

    shape = {"vocab_size": 20, "n_positions": 8, "n_embd": 32, "n_layer": 2, "n_head": 2}
    gpt = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0, **eager)).eval()
    tokens = torch.randint(20, (32, 9))
    pairs = [({"input_ids": part[:, :-1]}, part[:, 1:].clone()) for part in tokens.split(16)]
    yield Problem("GPT-2, the next token", gpt, pairs, named, nn.CrossEntropyLoss())

    regression = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3)).eval()
    pairs = [(torch.randn(128, 20), torch.randn(128, 3)) for _ in range(2)]
    yield Problem("regression, squared error", regression, pairs, plain, nn.MSELoss())


def ours(problem: Problem) -> Answers:
    arguments, model, data = problem.arguments(), problem.model, problem.batches
    top = lambda matrix: repro.top(model, data, K, matrix=matrix, **arguments).eigenvalues  # noqa: E731
    return {
        LEADING_H: lambda: top("hessian"),
        LEADING_G: lambda: top("gauss_newton"),
        TRACE_G: lambda: repro.moments(model, data, matrix="gauss_newton", **arguments).trace.value,
    }


def curvlinops(problem: Problem) -> Answers:
    from curvlinops import GGNLinearOperator, HessianLinearOperator, xtrace

    model = Called(problem)

    def rows(x: Any) -> int:
        return len(next(iter(x.values()))) if isinstance(x, dict) else len(x)

    def operator(kind: Callable[..., Any]) -> Any:
        total = sum(rows(x) for x, _ in problem.batches)
        return kind(model, problem.loss, list(model.parameters()), problem.batches, num_data=total, batch_size_fn=rows)

    def leading(kind: Callable[..., Any]) -> np.ndarray:
        return eigsh(operator(kind).to_scipy(), k=K, which="LA", tol=TOLERANCE, return_eigenvectors=False)

    return {
        LEADING_H: lambda: leading(HessianLinearOperator),
        LEADING_G: lambda: leading(GGNLinearOperator),
        TRACE_G: lambda: xtrace(operator(GGNLinearOperator), 40),
    }


def hessian_eigenthings(problem: Problem) -> Answers:
    from hessian_eigenthings import GGNOperator, HessianOperator, lanczos, trace

    def hessian() -> Any:
        return HessianOperator(
            problem.model, problem.batches, lambda m, b: problem.loss(problem.outputs(m, b[0]), b[1])
        )

    def gauss_newton() -> Any:
        call, loss = (lambda m, b: problem.outputs(m, b[0])), (lambda f, b: problem.loss(f, b[1]))
        return GGNOperator(problem.model, problem.batches, call, loss)

    return {
        LEADING_H: lambda: lanczos(hessian(), k=K, which="LA").eigenvalues,
        LEADING_G: lambda: lanczos(gauss_newton(), k=K, which="LA").eigenvalues,
        TRACE_G: lambda: trace(gauss_newton()).estimate,
    }


def pyhessian(problem: Problem) -> Answers:
    from pyhessian import hessian

    def leading() -> list[float]:
        made = hessian(Called(problem), problem.loss, dataloader=problem.batches, cuda=False)
        return made.eigenvalues(top_n=K)[0]

    return {LEADING_H: leading}


def truth(problem: Problem) -> dict[str, np.ndarray]:
    """Answers in float64."""
    exact = problem.double()
    found: dict[str, np.ndarray] = {}
    for question, matrix in ((LEADING_H, "hessian"), (LEADING_G, "gauss_newton")):
        pairs = repro.top(exact.model, exact.batches, K, matrix=matrix, tolerance=1e-6, **exact.arguments())  # type: ignore[arg-type]
        if not bool(pairs.converged.all()):
            raise RuntimeError(f"{problem.name}: no reference for the {question}")
        found[question] = pairs.eigenvalues.numpy()
    found[TRACE_G] = np.asarray(_trace(exact))
    return found


def _trace(problem: Problem) -> float:
    """tr G = Σ ‖√(loss'') J‖² by reverse mode, one output of one example after the other: slow and simple."""
    parameters, total, count = list(problem.model.parameters()), 0.0, 0
    for x, _ in problem.batches:
        outputs = problem.call(problem.model, x)
        rows = outputs.flatten(0, -2)  # one for each example or position
        count += len(rows)
        for row in rows:
            if isinstance(problem.loss, nn.MSELoss):
                root = torch.eye(len(row), dtype=row.dtype) * (2 / len(row)) ** 0.5
            else:
                p = row.detach().softmax(0)
                root = p.sqrt()[:, None] * (torch.eye(len(p), dtype=p.dtype) - p)  # rootᵀ root = diag(p) − p pᵀ
            for direction in root:
                pieces = torch.autograd.grad(row, parameters, direction, retain_graph=True, allow_unused=True)
                total += sum(float((piece**2).sum()) for piece in pieces if piece is not None)
    return total / count


def compare(problem: Problem, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each question and package; they take turns."""
    packages = {"ours": ours(problem.copy())}
    for name, make in (
        ("curvlinops", curvlinops),
        ("hessian_eigenthings", hessian_eigenthings),
        ("pyhessian", pyhessian),
    ):
        if importlib.util.find_spec(name):
            packages[PEERS[name]] = make(problem.copy())
        else:
            print(f"{PEERS[name]} is not installed: left out")
    expected = truth(problem)
    for question, right in expected.items():
        found: dict[str, dict[str, Any]] = {name: {"seconds": [], "errors": []} for name in packages}
        for _ in range(rounds):
            for name, answers in packages.items():
                if question not in answers:
                    found[name]["refusal"] = "not offered"
                    continue
                begin = time.perf_counter()
                try:
                    value = answers[question]()
                except Exception as error:  # whatever a package raises is its answer
                    found[name]["refusal"] = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
                    continue
                found[name]["seconds"].append(time.perf_counter() - begin)
                value = np.sort(np.asarray(torch.as_tensor(value).detach(), dtype=float).reshape(-1))[::-1]
                found[name]["errors"].append(float((abs(value - right) / abs(right)).max()))
        for name, row in found.items():
            answered = bool(row["seconds"])
            yield {
                "network": problem.name,
                "parameters": sum(p.numel() for p in problem.model.parameters()),
                "question": question,
                "package": name,
                "seconds_median": round(float(np.median(row["seconds"])), 3) if answered else None,
                "largest_error": float(f"{max(row['errors']):.1e}") if answered else None,
                "refusal": row.get("refusal", ""),
                "rounds": rounds,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="embedded", help="whose MLP is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="csv file")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    made = provenance("cpu", 0)
    facts = {key: made[key] for key in ("device", "threads", "torch")}
    facts |= {name: version(of) for name, of in PEERS.items() if importlib.util.find_spec(name)}
    facts["date"] = datetime.date.today().isoformat()
    rows: list[dict[str, Any]] = []
    for problem in problems(args.experiment):
        rows += [row | facts for row in compare(problem, args.rounds)]
        args.out.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(args.out, index=False)
    table = pd.DataFrame(rows)[["network", "question", "package", "seconds_median", "largest_error", "refusal"]]
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
