"""Inner products of the rows of G, added up in float64: the Gram matrix K = B Bᵀ has the non-zero eigenvalues of G.

K has N (C − 1) rows, whatever the number of parameters. Rows are held without their factors √(p_k / N), which K gets at
the end: no row underflows in the precision of the network.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from repro.curvature.example_gradients import ExampleGradients
from repro.curvature.inputs import Inputs, count, one_row_each, split
from repro.curvature.layers import capture
from repro.curvature.row_plan import Entries, Layer, Plan, capture_bytes
from repro.curvature.softmax_root import SoftmaxRoot
from repro.linalg.operator import may_stop

Data = list[tuple[Inputs, Tensor]]
CACHE, GPU_STEP = 1 << 21, 1 << 28  # bytes of errors mixed by positions at once: on a CPU they are to stay in its cache


class RowGram:
    """K of N examples and C − 1 rows each; example by example, the rows of one in the order of their labels."""

    def __init__(self, examples: int, rows: int, device: torch.device, temporary: int):
        self.examples, self.rows = examples, rows
        self.matrix = torch.zeros(examples * rows, examples * rows, dtype=torch.float64, device=device)
        self.width = max(1, temporary // (8 * len(self.matrix)))  # coordinates of all rows to convert at once

    def add_rows(self, rows: Tensor) -> None:  # [n, P']
        """Add the inner products of rows, of which some coordinates are given."""
        for part in rows.split(self.width, dim=1):
            part = part.double()
            for a, b in _blocks(len(rows), max(1, len(rows) // 16)):  # the lower triangle
                self.matrix[a:b, :b].addmm_(part[a:b], part[:b].T)

    def add_products(self, features: Tensor, errors: Tensor) -> None:  # [N, 1, D], [N, C-1, 1, O]
        """Add <h_i, h_j> <e_{i,k}, e_{j,l}> of a layer that acts at one position."""
        r, similar = self.rows, _inner_products(features[:, 0], self.width)
        for a, b in _blocks(self.examples, max(1, min(self.examples // 16, self.width // r))):
            block = self.matrix.new_zeros((b - a) * r, b * r)
            for part in errors[:b].flatten(0, 2).split(self.width, dim=1):
                part = part.double()
                block.addmm_(part[a * r :], part.T)
            block.view(b - a, r, b, r).mul_(similar[a:b, None, :b, None])
            self.matrix[a * r : b * r, : b * r] += block

    def add_mixed(self, features: Tensor, errors: Tensor) -> None:  # [N, T, D], [N, C-1, T, O]
        """Add Σ_{t,s} <h_{i,t}, h_{j,s}> <e_{i,k,t}, e_{j,l,s}> of a layer that acts at several positions."""
        N, r, T, O = errors.shape
        step = max(1, (CACHE if errors.device.type == "cpu" else GPU_STEP) // (8 * T * O * r))
        for a, b in _blocks(N, step):
            others, h = errors[a:b].flatten(2).double(), features[a:b].flatten(0, 1).double()
            for c, d in _blocks(N - a, step):  # of the examples from a on
                chosen = slice(a + c, a + d)
                similar = h @ features[chosen].flatten(0, 1).double().T  # [.. T, .. T]
                own = errors[chosen].permute(0, 2, 3, 1).reshape(-1, T, O * r).double()
                for i, columns, e in zip(range(a + c, a + d), similar.split(T, dim=1), own):
                    mixed = (columns @ e).view(b - a, T * O, r)
                    block = others @ mixed  # [.., C-1 of j, C-1 of i]
                    self.matrix[i * r : (i + 1) * r, a * r : b * r] += block.permute(2, 0, 1).reshape(r, -1)

    def finish(self, scale: Tensor) -> Tensor:  # [n] -> [n, n]
        """The whole matrix of rows multiplied by `scale`: only the lower triangle was added up."""
        K = self.matrix
        for a, b in _blocks(len(K), max(1, len(K) // 32)):
            K[a:b, a:b] = K[a:b, a:b].tril() + K[a:b, a:b].tril(-1).T
            K[:a, a:b] = K[a:b, :a].T
        return K.mul_(scale).mul_(scale[:, None])


def row_gram(model: nn.Module, data: Data, root: SoftmaxRoot, plan: Plan) -> Tensor:  # -> [n, n]
    """K of the parameters in the plan, by its passes over the data.

    Args:
        root: of the logits of all examples, in the order of the data.
    """
    N, C = root.log_p.shape
    gram = RowGram(N, C - 1, root.log_p.device, plan.temporary)
    for layers in plan.layers:
        held = _collect(model, data, root, layers, plan.temporary)
        for layer in layers:
            _add_layer(gram, layer, held.pop(0))
    for entries in plan.rest:
        gram.add_rows(_entry_rows(model, data, root, entries, plan.temporary))
    return gram.finish((root.scale / N**0.5).flatten())


def _inner_products(rows: Tensor, width: int) -> Tensor:  # [N, D] -> [N, N]
    """<h_i, h_j>, added up in float64 over slices of the coordinates."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for part in rows.split(width, dim=1):
        part = part.double()
        total.addmm_(part, part.T)
    return total


def _blocks(length: int, step: int) -> Iterator[tuple[int, int]]:
    for first in range(0, length, step):
        may_stop()
        yield first, min(first + step, length)


def _collect(
    model: nn.Module, data: Data, root: SoftmaxRoot, layers: list[Layer], temporary: int
) -> list[list[Tensor]]:
    """Of each layer its rows [N, C-1, O D], or features [N, T, D] and errors [N, C-1, T, O], from one pass."""
    like, (N, C) = next(model.parameters()).detach(), root.log_p.shape
    names = list(dict.fromkeys(layer.name for layer in layers))
    held: list[list[Tensor]] = []
    for layer in layers:
        T, D, O = layer.positions, layer.features, layer.outputs.stop - layer.outputs.start
        shapes = [(N, C - 1, O * D)] if layer.as_rows else [(N, T, D), (N, C - 1, T, O)]
        held.append([like.new_empty(shape) for shape in shapes])
    for x, place in small_batches(data, capture_bytes(layers, C, like.element_size()), temporary):
        seen, own = capture(model, x, names, bias=True), SoftmaxRoot(root.log_p[place])
        for layer, tensors in zip(layers, held):
            h, errors = seen.h[layer.name][..., layer.columns], own.combine(seen.delta[layer.name][..., layer.outputs])
            if layer.as_rows:
                tensors[0][place] = torch.einsum("bkto,btd->bkod", errors, h).flatten(2)
            else:
                tensors[0][place], tensors[1][place] = h, errors
    return held


def _entry_rows(
    model: nn.Module, data: Data, root: SoftmaxRoot, entries: Entries, temporary: int
) -> Tensor:  # -> [n, entries]
    """Rows by gradients of single examples, where the parameters belong to no plain layer."""
    like, (N, C) = next(model.parameters()).detach(), root.log_p.shape
    rows = like.new_empty(N, C - 1, entries.chosen.stop - entries.chosen.start)
    gradients = ExampleGradients(model, entries.parameters)
    for x, place in small_batches(data, C * entries.size * like.element_size(), temporary):
        cotangents = SoftmaxRoot(root.log_p[place]).cotangents().to(like.dtype)
        rows[place] = gradients(x, cotangents)[..., entries.chosen]
    return rows.flatten(0, 1)


def small_batches(data: Data, bytes_each: int, temporary: int) -> Iterator[tuple[Inputs, slice]]:
    """The inputs in batches that take no more than `temporary` bytes, with their places among all rows of logits.

    An example with several rows of logits is repeated for each: gradients are of single rows.
    """
    place = 0
    for x, _ in data:
        for part in split(one_row_each(x), max(1, temporary // bytes_each)):
            may_stop()
            yield part, slice(place, place + count(part))
            place += count(part)


def _add_layer(gram: RowGram, layer: Layer, held: list[Tensor]) -> None:
    if layer.as_rows:
        gram.add_rows(held[0].flatten(0, 1))
    elif layer.factored:
        add = gram.add_products if layer.positions == 1 else gram.add_mixed
        add(*held)
    else:
        h, errors = held
        for part in errors.split(max(1, gram.width // layer.features), dim=3):
            gram.add_rows(torch.einsum("bkto,btd->bkod", part.double(), h.double()).flatten(2).flatten(0, 1))
