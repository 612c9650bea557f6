"""Second derivatives of the mean loss of a network, by default the cross-entropy, as linear operators (Sections 4-6).

The weights and the data stand still during a spectrum, so what does not depend on the vector multiplied is computed
once: the graph of J^T u is kept for as many batches as `memory_budget` holds, and rebuilt in each product for the rest.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from functools import cached_property, partial
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from repro.curvature import checks
from repro.curvature.batches import Batches
from repro.curvature.classifier import prepared
from repro.curvature.derivatives import Derivatives, DoubleBackward, Intercepted, Recorded
from repro.curvature.function import logits_of
from repro.curvature.inputs import Inputs, count
from repro.curvature.loss import SoftmaxCrossEntropy
from repro.curvature.origin import Origin, origin_of
from repro.curvature.other_losses import LossLike, find_loss, is_cross_entropy
from repro.curvature.parameters import Parameters, Selection, state_of
from repro.curvature.proof import Need, prove
from repro.linalg.operator import LinearOperator

log = logging.getLogger(__name__)


class RiskOperator(LinearOperator):
    """1/N Σ_i of a second derivative of example i's loss; subclasses say which.

    The weights are copied at construction: what becomes of the model later does not change the matrix. `data` is read
    once into a list (a shuffling loader is thereby fixed); its split into batches changes costs, not the matrix.
    Before the first product the ways to multiply prove themselves on this network, see `repro.curvature.proof`.

    Args:
        model: any network in eval mode; it returns logits [B, C], or what the loss takes.
        data: batches (inputs, labels) on the model's device.
        parameters: which parameters θ consists of, see `Parameters`. Those that the output does not depend on have
            zero rows.
        memory_budget: bytes that may be spent to keep graphs between products.
        weight_decay: adds its half times ‖θ‖² to the risk. The paper has none.
        class_weights: [C]; the mean over examples becomes Σ_i w_{y_i} ℓ_i / Σ_i w_{y_i}, as in `cross_entropy`.
        loss: None for the softmax cross-entropy; nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss(...), or any
            function (outputs, targets) -> its mean over the examples, see `repro.curvature.other_losses.find_loss`.

    Attributes:
        parameters: the layout of the vectors [P].
        loss: value of the risk at θ, weight decay included.
        loss_function: the loss of an example, a `repro.curvature.loss.Loss`.
        outputs: of the network, one tensor for each batch.
        kept_bytes: memory that the graphs kept between products take, estimated from the first batch's.

    Raises:
        ValueError: a model in train mode, non-finite weights or logits, unfit data; see `checks`. A loss that is no
            mean over examples. At the first product: a network whose derivatives by autograd are not its derivatives.
    """

    need: Need = "curvature"
    convex: ClassVar[bool] = True  # whether the loss must be convex in the outputs
    counted: ClassVar[int] = 0  # vectors that they and the remainders of G in this process have been multiplied by

    def __init__(
        self,
        model: nn.Module,
        data: Batches,
        *,
        parameters: Selection = None,
        memory_budget: int = 4 << 30,
        weight_decay: float = 0.0,
        class_weights: Tensor | None = None,
        loss: LossLike = None,
    ):
        self.model, self.data = prepared(model, data, by_position=is_cross_entropy(loss))
        checks.check_deterministic(self.model)
        self.parameters = Parameters(self.model, parameters)
        self._state = state_of(self.model)
        like = self._state[self.parameters.names[0]]
        super().__init__(like.new_empty(self.parameters.dim))
        self.weight_decay, self.memory_budget = weight_decay, memory_budget
        self.loss_function = find_loss(loss, self.data[0][1], class_weights)
        self._derivatives: Derivatives | None = None  # how to multiply; not known before the first product
        self._kept: dict[int, Recorded | None] = {}
        self._keep = 0  # so many batches are kept
        self.kept_bytes = 0.0
        self._total_weight = 0.0
        self.outputs: list[Tensor] = []
        self.loss = self._examine(like)

    @cached_property
    def labels(self) -> Tensor:  # [N]
        """The class of every example.

        Raises:
            ValueError: as for `probabilities` and `mass`: the loss is another than the cross-entropy of class labels.
        """
        self.cross_entropy()
        return torch.cat([y for _, y in self.data])

    @cached_property
    def probabilities(self) -> Tensor:  # [N, C]
        """Softmax of the logits of every example."""
        self.cross_entropy()
        return torch.cat([logits.softmax(dim=1) for logits in self.outputs])

    def mass_of(self, classes: Tensor) -> Tensor:  # [K] -> [K, C]
        """Probabilities of the examples of each class, added up and divided by N: rows of the weights w_{c,c'}."""
        p = self.probabilities
        total, sizes = p.new_zeros(len(classes), p.shape[1]), [len(y) for _, y in self.data]
        for labels, some in zip(self.labels.split(sizes), p.split(sizes)):
            total += (labels[:, None] == classes).to(p).T @ some / len(p)
        return total

    def cross_entropy(self) -> SoftmaxCrossEntropy:
        """The loss, where it is the cross-entropy of class labels.

        Raises:
            ValueError: it is another.
        """
        if not isinstance(self.loss_function, SoftmaxCrossEntropy):
            raise ValueError(
                f"class structure is of the softmax cross-entropy of class labels, and this {type(self).__name__} is of"
                f" the {self.loss_function.name}"
            )
        return self.loss_function

    def logits(self, x: Inputs) -> Tensor:  # -> [rows, C]
        """The network at the weights of this operator, without a graph."""
        plain = self._plain()
        with plain.active(), torch.no_grad():
            return plain.logits(x)

    def gradient(self) -> Tensor:  # -> [P]
        """∂ risk / ∂θ, of the same mean over examples."""
        total = self.weight_decay * self.parameters.flatten(self._state)
        plain = self._plain()
        with plain.active():
            for x, y in self.data:
                total += plain.gradient(x, partial(self.errors, y=y))[1]
        return total

    def origin(self, classes: Tensor | None = None) -> Origin:
        """By which a class structure of the same network and data is recognised, one of all classes or of some."""
        if classes is None:
            classes = torch.arange(self.probabilities.shape[1], device=self.device)
        counts = (self.labels[:, None] == classes).sum(dim=0)
        return origin_of(self.parameters.names, self._state, counts, self.mass_of(classes)[:, classes])

    def matmat(self, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        RiskOperator.counted += V.shape[1]
        derivatives = self._ready(V)
        rows = V.detach().T.contiguous()  # one vector a row, so that its pieces are contiguous
        out, depends = torch.empty_like(rows), False
        with derivatives.active():
            for i, (_, y) in enumerate(self.data):
                recorded = self._recorded(derivatives, i)
                depends |= recorded is not None
                for v, row in zip(rows, out):
                    with derivatives.along(v, row, first=i == 0):
                        if recorded is not None:
                            self.add_product(derivatives, recorded, y)
        self._finite(out)
        if not depends:
            raise ValueError(f"the model's output depends on none of the parameters {self.parameters.names}")
        return out.add_(rows, alpha=self.decay).T if self.decay else out.T

    @property
    def decay(self) -> float:
        """Multiple of the identity that weight decay adds."""
        return self.weight_decay

    def cotangent(self, logits: Tensor, y: Tensor) -> Tensor:  # [B, C], [B] -> [B, C]
        """u, whose pullback J^T u is recorded."""
        raise NotImplementedError

    def add_product(self, derivatives: Derivatives, recorded: Recorded, y: Tensor) -> None:
        """Add one batch's part of the product with the vector that `derivatives` are taken along."""
        raise NotImplementedError

    def errors(self, logits: Tensor, y: Tensor) -> Tensor:  # [B, C], [B] -> [B, C]
        """w ∂ℓ/∂f, the derivative of the risk by the outputs, as a function of these; w as in `weights`."""
        return self.weights(y) * self.loss_function.errors(logits, y)

    def weights(self, y: Tensor) -> Tensor | float:  # -> [B, 1] or one for all
        """Weights of examples in the mean, which sum to one over the data."""
        return self.loss_function.weights(y) / self._total_weight

    def _ready(self, V: Tensor) -> Derivatives:  # [P, K]
        """How to multiply, proved; vectors that do not fit are refused."""
        if V.shape[0] != self.dim or (V.dtype, V.device) != (self.dtype, self.device):
            raise ValueError(
                f"cannot multiply {V.dtype} {list(V.shape)} on {V.device} by this operator,"
                f" which is {self.dtype} [{self.dim}, {self.dim}] on {self.device}"
            )
        checks.check_deterministic(self.model)
        if self._derivatives is None:
            self._derivatives = self._proved()
        return self._derivatives

    def _recorded(self, derivatives: Derivatives, i: int) -> Recorded | None:
        """The graph of batch i, kept or built."""
        return self._kept[i] if i in self._kept else self._record(derivatives, i)

    def _finite(self, out: Tensor) -> Tensor:
        if not math.isfinite(float(out.sum())):
            raise ValueError(
                f"a product with {type(self).__name__} is not finite: look for a root, norm, logarithm or quotient that"
                " the network takes at zero, and for vectors that are not finite"
            )
        return out

    def _plain(self) -> DoubleBackward:
        return DoubleBackward(self.model, self.parameters, self._state)

    def _proved(self) -> Derivatives:
        fast = prove(self.model, self.parameters, self._state, self.data, need=self.need)
        if not fast:
            return self._plain()
        derivatives = Intercepted(self.model, self.parameters, self._state)
        self._keep = self._plan(derivatives)
        return derivatives

    @torch.no_grad()
    def _examine(self, like: Tensor) -> float:
        """Pass over the data once: check it, add up the weights of the examples, return the risk."""
        total, weight, loss = 0.0, 0.0, self.loss_function
        for i, (x, y) in enumerate(self.data):
            checks.check_inputs(x, y, like)
            outputs = logits_of(self.model, x)
            y = loss.checked(outputs, y)
            checks.check_outputs(outputs, y, like)
            loss.prove(outputs, y, convex=self.convex)
            if i == 0 and (doubt := loss.doubt(outputs, y)):
                checks.warn_once(self.model, doubt)
            total += float(loss.total(outputs, y))
            weight += float(torch.as_tensor(loss.weights(y), dtype=torch.float64).expand(len(y), 1).sum())
            self.data[i] = x, y
            self.outputs.append(outputs)
        if weight == 0:
            raise ValueError(
                "class_weights are zero for every class that occurs: the mean over examples is not defined"
            )
        self._total_weight = weight
        checks.check_loss(total, loss.name)
        chosen = (self._state[name] for name in self.parameters.names)
        decay = self.weight_decay / 2 * sum(float(tensor.square().sum()) for tensor in chosen)
        return total / weight + decay

    def _record(self, derivatives: Derivatives, i: int) -> Recorded | None:
        """Build the graph of batch i, and keep it if the budget holds it."""
        x, y = self.data[i]
        recorded = derivatives.record(x, partial(self.cotangent, y=y), curved=self.need == "curvature")
        if i < self._keep:
            self._kept[i] = recorded
        return recorded

    def _plan(self, derivatives: Derivatives) -> int:
        """How many of the batches to keep: those that fit the budget, by what the first one costs an example."""
        if self.memory_budget <= 0:
            return 0
        meter = _Meter(self._state.values())
        with meter:
            self._record(derivatives, 0)
        cost = meter.bytes / count(self.data[0][0])
        ends = list(accumulate(cost * count(x) for x, _ in self.data))
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
