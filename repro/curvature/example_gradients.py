"""Gradients of single examples with respect to any parameters of any network, many examples at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from repro.curvature.evaluation import own_precision
from repro.curvature.inputs import Inputs, count, take

Logits = Callable[[Sequence[Tensor], Inputs], Tensor]  # the chosen weights, one example [...] -> [C]


def example_gradients(model: nn.Module, x: Inputs, names: Sequence[str], cotangents: Tensor) -> Tensor:
    """J_iᵀ u_{i,k} for each example i and each of its cotangents k, by the parameters `names` in that order, flattened.

    Each example gets a copy of these parameters of its own, so one backward pass keeps the examples of a batch apart;
    the other weights are not differentiated. `torch.func.vmap` runs the examples together. A network that it cannot
    run, such as an LSTM, is run example by example.

    Args:
        x: of B examples, with one row of logits each.
        cotangents: [B, K, C].

    Returns:
        [B, K, P'] for names of P' entries; zero where the logits do not depend on them.
    """
    fixed = {name: t.detach() for name, t in [*model.named_parameters(), *model.named_buffers()]}
    weights = [fixed[name] for name in names]

    def logits(own: Sequence[Tensor], example: Inputs) -> Tensor:
        return functional_call(model, {**fixed, **dict(zip(names, own))}, (take(example, None),))[0]

    with own_precision(cotangents.device.type), torch.enable_grad(), differentiable_attention():
        try:
            return _rows(vmap(logits), weights, x, cotangents)
        except (RuntimeError, ValueError):  # also raised by a network that is at fault itself: then raised again
            each = [slice(i, i + 1) for i in range(count(x))]
            return torch.cat([_rows(_single(logits), weights, take(x, i), cotangents[i]) for i in each])


def _single(logits: Logits) -> Logits:
    """The same for a batch of one example."""
    return lambda own, x: logits([weight[0] for weight in own], take(x, 0))[None]


def _rows(logits: Logits, weights: Sequence[Tensor], x: Inputs, cotangents: Tensor) -> Tensor:  # -> [B, K, P']
    leaves = [weight.expand(count(x), *weight.shape).requires_grad_() for weight in weights]
    output = logits(leaves, x)  # [B, C]
    B, K, _ = cotangents.shape
    rows = output.new_zeros(B, K, sum(weight.numel() for weight in weights))
    for k in range(K if output.requires_grad else 0):
        keep = k + 1 < K
        found = torch.autograd.grad(output, leaves, cotangents[:, k], retain_graph=keep, materialize_grads=True)
        torch.cat([gradient.flatten(1) for gradient in found], dim=1, out=rows[:, k])
    return rows


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Attention in elementary operations: torch takes its fused inference kernel where vmap hides requires_grad."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
