"""Second derivatives of the mean cross-entropy of a classifier as linear operators (Papyan 2020, Sections 4-6).

The weights and the data stand still during a spectrum, so what does not depend on the vector multiplied is computed
once: the graph of J^T u is kept for as many batches as `memory_budget` holds, and rebuilt in each product for the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from repro.curvature import checks
from repro.curvature.affine import Direction, Intercept
from repro.linalg.operator import LinearOperator

log = logging.getLogger(__name__)

Batches = Iterable[tuple[Tensor, Tensor]]
Selection = str | Iterable[str] | Callable[[str], bool] | None


class Parameters:
    """The chosen parameters of a network as one vector [P], in the order of `named_parameters`.

    `selection` is None (all of them), a prefix ("classifier" means 'classifier.*'), names, or a predicate on names.
    `requires_grad` plays no part: what θ is, the selection says.

    Attributes:
        names, shapes: of the parameters, in order.
        slices: name -> its place in the vector.
        dim: P.
    """

    def __init__(self, model: nn.Module, selection: Selection = None):
        found = dict(model.named_parameters())
        self.names = [name for name in found if name in _chosen(found, selection)]
        self.shapes = [found[name].shape for name in self.names]
        checks.check_weights({name: found[name].detach() for name in self.names})
        ends = list(accumulate(shape.numel() for shape in self.shapes))
        self.slices = {name: slice(a, b) for name, a, b in zip(self.names, [0, *ends], ends)}
        self.dim: int = ends[-1]

    def flatten(self, tensors: Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor:  # -> [P]
        """Concatenate tensors, given by name or in order, to one vector."""
        ordered = [tensors[name] for name in self.names] if isinstance(tensors, Mapping) else tensors
        return torch.cat([tensor.reshape(-1) for tensor in ordered])

    def unflatten(self, v: Tensor) -> dict[str, Tensor]:  # [P] -> views by name
        """The pieces of a vector [P] in the shapes of the parameters; views, not copies."""
        return {name: v[self.slices[name]].view(shape) for name, shape in zip(self.names, self.shapes)}


def _chosen(found: Mapping[str, Tensor], selection: Selection) -> set[str]:
    if selection is None:
        return set(found)
    if isinstance(selection, str):
        chosen = {name for name in found if name == selection or name.startswith(f"{selection}.")}
    elif callable(selection):
        chosen = {name for name in found if selection(name)}
    else:
        chosen = set(selection)
    if unknown := chosen - found.keys():
        raise ValueError(f"the model has no parameters {sorted(unknown)}; it has {sorted(found)}")
    if not chosen:
        raise ValueError(f"no parameter is selected by {selection!r}; the model has {sorted(found)}")
    return chosen


class Recorded(NamedTuple):
    """The graph of <J^T u, v> of one batch, ready to be differentiated again and again, for any v."""

    logits: Tensor  # [B, C]
    cotangent: Tensor  # u [B, C]
    pieces: tuple[Tensor | None, ...]  # <J^T u, v> by parts: ∂/∂t, then J^T u of each parameter where autograd sees it
    weights: Tensor  # [B, 1] of the examples in the mean


class RiskOperator(LinearOperator):
    """1/N Σ_i of a second derivative of example i's cross-entropy; subclasses say which.

    The weights are copied at construction: what becomes of the model later does not change the matrix. `data` is read
    once into a list (a shuffling loader is thereby fixed); its split into batches changes costs, not the matrix.

    Args:
        model: any network that returns logits [B, C], in eval mode.
        data: batches (inputs, labels) on the model's device.
        parameters: which parameters θ consists of, see `Parameters`. Those that the output does not depend on have
            zero rows.
        memory_budget: bytes that may be spent to keep graphs between products.
        weight_decay: adds its half times ‖θ‖² to the risk. The paper has none.
        class_weights: [C]; the mean over examples becomes Σ_i w_{y_i} ℓ_i / Σ_i w_{y_i}, as in `cross_entropy`.

    Attributes:
        parameters: the layout of the vectors [P].
        loss: value of the risk at θ, weight decay included.
        kept_bytes: memory that the graphs kept between products take, estimated from the first batch's.

    Raises:
        ValueError: a model in train mode, non-finite weights or logits, unfit data; see `checks`.
    """

    curved = True  # whether second derivatives of the network are needed

    def __init__(
        self,
        model: nn.Module,
        data: Batches,
        *,
        parameters: Selection = None,
        memory_budget: int = 4 << 30,
        weight_decay: float = 0.0,
        class_weights: Tensor | None = None,
    ):
        checks.check_deterministic(model)
        self.parameters = Parameters(model, parameters)
        self._state = {name: t.detach().clone() for name, t in [*model.named_parameters(), *model.named_buffers()]}
        self._leaves = tuple(self._state[name].requires_grad_() for name in self.parameters.names)
        super().__init__(torch.empty(self.parameters.dim, dtype=self._leaves[0].dtype, device=self._leaves[0].device))
        self.model, self.weight_decay, self.class_weights = model, weight_decay, class_weights
        self.memory_budget = memory_budget
        self.data = list(data)
        self._direction = Direction(self._leaves[0])
        self._kept: dict[int, Recorded] = {}
        self._keep: int | None = None  # the first so many batches are kept; not known before the first product
        self.kept_bytes = 0.0
        self.loss = self._examine()

    def logits(self, x: Tensor) -> Tensor:  # -> [B, C]
        """The network at the weights of this operator."""
        return functional_call(self.model, self._state, (x,))

    def gradient(self) -> Tensor:  # -> [P]
        """∂ risk / ∂θ, of the same mean over examples."""
        total = self.weight_decay * self.parameters.flatten([leaf.detach() for leaf in self._leaves])
        for x, y in self.data:
            with torch.enable_grad():
                risk = cross_entropy(self.logits(x), y, weight=self.class_weights, reduction="sum") / self._total_weight
            total += self.parameters.flatten(torch.autograd.grad(risk, self._leaves, materialize_grads=True))
        return total

    def matmat(self, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        if V.shape[0] != self.dim or (V.dtype, V.device) != (self.dtype, self.device):
            raise ValueError(
                f"cannot multiply {V.dtype} {list(V.shape)} on {V.device} by this operator,"
                f" which is {self.dtype} [{self.dim}, {self.dim}] on {self.device}"
            )
        checks.check_deterministic(self.model)
        rows = V.detach().T.contiguous()  # one vector a row, so that its pieces are contiguous
        out = torch.empty_like(rows)
        with checks.second_derivatives():
            for i in range(len(self.data)):
                recorded = self._kept.get(i) or self._record(i)
                for v, row in zip(rows, out):
                    self._add_product(recorded, v, row, first=i == 0)
        return out.add_(rows, alpha=self.decay).T if self.decay else out.T

    def _add_product(self, recorded: Recorded, v: Tensor, out: Tensor, *, first: bool) -> None:  # v [P], out [P]
        """Add one batch's part of the product with v to `out`, or write it there if it is the first."""
        direction = self._direction
        direction.v, direction.out = self.parameters.unflatten(v), self.parameters.unflatten(out)
        direction.written = set() if first else set(self.parameters.names)
        tangents = (torch.ones_like(direction.t), *direction.v.values())
        seen = [(g, t) for g, t in zip(recorded.pieces, tangents) if g is not None and g.requires_grad]
        if seen:
            gradients = self.multiply(recorded, *zip(*seen))
            for name, gradient in zip(self.parameters.names, gradients):
                if gradient is not None:
                    direction.add(name, gradient)
        for name in set(self.parameters.names) - direction.written:
            direction.out[name].zero_()
        direction.v, direction.out = {}, {}

    @property
    def decay(self) -> float:
        """Multiple of the identity that weight decay adds."""
        return self.weight_decay

    def cotangent(self, logits: Tensor, y: Tensor, weights: Tensor) -> Tensor:  # -> [B, C]
        """u, whose pullback J^T u is recorded."""
        raise NotImplementedError

    def multiply(self, recorded: Recorded, pieces: Sequence[Tensor], v: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """One batch's part of the product: what autograd sees of it is returned, `direction` receives the rest."""
        raise NotImplementedError

    def pull_back(self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Derivatives of <outputs, cotangents> by θ, graphs kept; see `multiply`."""
        inputs = (self._direction.t, *self._leaves)
        return torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True, allow_unused=True)[1:]

    @torch.no_grad()
    def _examine(self) -> float:
        """Pass over the data once: check it, add up the weights of the examples, return the risk."""
        if not self.data:
            raise ValueError("no data: a mean over examples needs at least one batch")
        total, weight = 0.0, 0.0
        for i, (x, y) in enumerate(self.data):
            checks.check_batch(x, y, self._leaves[0])
            self.data[i] = x, y = x, y.long()
            logits = self.logits(x)
            checks.check_logits(logits, y)
            checks.check_class_weights(self.class_weights, logits.shape[1], self._leaves[0])
            total += float(cross_entropy(logits, y, weight=self.class_weights, reduction="sum"))
            weight += len(y) if self.class_weights is None else float(self.class_weights[y].sum())
        if weight == 0:
            raise ValueError(
                "class_weights are zero for every class that occurs: the mean over examples is not defined"
            )
        self._total_weight = weight
        checks.check_loss(total)
        return total / weight + self.weight_decay / 2 * sum(float(leaf.square().sum()) for leaf in self._leaves)

    def _record(self, i: int) -> Recorded:
        """Build the graph of batch i, and keep it if the budget holds it."""
        if self._keep is None:
            self._keep = self._plan()
        recorded = self._trace(*self.data[i])
        if i < self._keep:
            self._kept[i] = recorded
        return recorded

    def _trace(self, x: Tensor, y: Tensor) -> Recorded:
        intercept = Intercept(self._direction, dict(zip(self.parameters.names, self._leaves)), curved=self.curved)
        with torch.enable_grad():
            with intercept, sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
                logits = self.logits(x)
            if not logits.requires_grad:
                raise ValueError(f"the model's output depends on none of the parameters {self.parameters.names}")
            weights = torch.ones_like(logits[:, :1]) if self.class_weights is None else self.class_weights[y][:, None]
            u = self.cotangent(logits, y, weights / self._total_weight)
            by = (self._direction.t, *self._leaves)
            pieces = torch.autograd.grad(logits, by, u, create_graph=True, allow_unused=True)
        return Recorded(logits, u, pieces, weights / self._total_weight)

    def _plan(self) -> int:
        """How many of the batches to keep: those that fit the budget, by what the first one costs an example."""
        if self.memory_budget <= 0:
            return 0
        meter = _Meter(self._state.values())
        with meter:
            self._trace(*self.data[0])
        cost = meter.bytes / len(self.data[0][0])
        ends = list(accumulate(cost * len(x) for x, _ in self.data))
        keep = sum(end <= self.memory_budget for end in ends)
        self.kept_bytes = ends[keep - 1] if keep else 0.0
        log.info("keeping the graphs of %d of %d batches; all would take %.0f MiB", keep, len(ends), ends[-1] / 2**20)
        return keep


class _Meter(saved_tensors_hooks):
    """Counts the bytes that graphs built inside it hold on to, besides the tensors given."""

    def __init__(self, known: Iterable[Tensor]):
        self.bytes = 0
        self._seen = {t.untyped_storage().data_ptr() for t in known}
        super().__init__(self._count, lambda tensor: tensor)

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor.detach()
