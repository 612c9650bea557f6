"""A trained network with its data and loss: the one thing that every measurement takes.

The library makes it of a user's model and tensors, the pipeline of a selected run or a weights file.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from repro.curvature import checks
from repro.curvature.batches import Unpack
from repro.curvature.classifier import Logits, as_classifier
from repro.curvature.examples import Examples, read_examples
from repro.curvature.function import check_fixed_function, check_gradients, logits_of
from repro.curvature.inputs import Inputs, describe
from repro.curvature.layers import layer_names
from repro.curvature.loss import Loss, SoftmaxCrossEntropy
from repro.curvature.other_losses import LossLike, find_loss, is_cross_entropy
from repro.curvature.parameters import Parameters, Selection
from repro.curvature.risk import RiskOperator
from repro.data import Split
from repro.storage.results import Cell

R = TypeVar("R", bound=RiskOperator)
Data = Iterable[Any] | tuple[Inputs, Tensor] | Mapping[str, Any] | Dataset[Any]
USUAL_OUTLIERS = 10  # most eigenpairs that are taken out of a spectrum by default where there are no classes (ours)


class Network:
    """A trained classifier, or network with another loss, with its data, checked.

    The data are read once, in their order, and held on the model's device.

    Attributes:
        model: inputs -> logits [rows, C], one row for each example or labelled position, or outputs [B, ...] of another
            loss; their mean loss is what curvature is taken of. It is the network given, where that takes one tensor
            and returns one, and else a `repro.curvature.classifier.Classifier` of it.
        loss: of an example, by default the cross-entropy; class structure is of that one alone.
        train, test: the data as tensors; `test` is None if none were given.
        classes: C, the number of logits; of another loss, the number of outputs of an example, 10 at most.
        parameters: names of those that curvature is taken by; None for all.
        weight_decay: of its training; the measurement `weights` needs it, no other uses it.
        epochs: of the checkpoints given, ascending.
        batch_size: examples per batch when curvature is averaged: it decides memory, not results.
        cell: where the network belongs in a grid; the name of results and captions.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Data | Split | Examples,
        test: Data | Split | Examples | None = None,
        *,
        weight_decay: float = 0.0,
        checkpoints: Mapping[int, nn.Module] | None = None,
        batch_size: int = 256,
        cell: Cell | None = None,
        loss: LossLike = None,
        unpack: Unpack | None = None,
        logits: Logits | None = None,
        parameters: Selection = None,
    ):
        """Check the model and its data; one pass over each.

        Args:
            model: a classifier in eval mode. Inputs that are a mapping are given to it as keyword arguments, a tuple or
                list as positional ones, a tensor as the one argument. What it returns is logits [B, C], an object or
                mapping with `logits`, or a tuple that begins with them. Where labels are of positions they are
                [B, T, C] for labels [B, T], and [B, C, H, W] for labels [B, H, W]; the mean is over positions, and
                -100 is no label.
            train, test: a pair (inputs, labels) or a mapping of inputs and "labels", of tensors or numpy arrays of any
                nesting; or a Dataset, a DataLoader or a list of batches of such.
            checkpoints: networks by epoch, for the measurements `dynamics` and `alignment_dynamics`; a mapping may load
                them when they are asked for.
            loss: None for the cross-entropy of class labels, or of probabilities of the classes [B, C]; nn.MSELoss(),
                nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss(...), or any function (outputs, targets) -> its mean over
                the examples, see `repro.curvature.other_losses.find_loss`. Then the labels are targets that it takes,
                and the model is any that returns outputs [B, ...].
            unpack: a batch of the data -> (inputs, labels), where it is something else.
            logits: (model, inputs) -> logits, where the model is called otherwise or returns something else.
            parameters: which of them curvature is taken by, see `repro.curvature.parameters.Parameters`; by default
                all.

        Raises:
            TypeError: data in another form, or a model that is no nn.Module.
            ValueError: model or data for which curvature is not defined; the sentence says why and what to do.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"the model is a {type(model).__name__}: a torch.nn.Module is needed")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: a positive number of examples is needed")
        if not torch.is_grad_enabled():
            raise ValueError("gradients are switched off here: call this outside of torch.no_grad and inference_mode")
        self.model, self.weight_decay, self.batch_size = model, weight_decay, batch_size
        self._checkpoints: Mapping[int, nn.Module] = checkpoints or {}
        self.epochs = sorted(self._checkpoints)
        check_model(model)
        self._logits = logits
        self._layers: dict[str, Network] = {}
        self.train = _read(train, model, batch_size, unpack, loss)
        self.test = None if test is None else _read(test, model, batch_size, unpack, loss)
        self.loss = find_loss(loss, self.train.parts[0][1])
        self.model = as_classifier(model, self.batches(), logits)
        self.parameters = None if parameters is None else Parameters(self.model, parameters).names
        self.classes = _check_outputs(self.model, self.batches(), self.loss)
        if self.test is not None:
            _check_outputs(self.model, self.batches("test"), self.loss)
        check_fixed_function(self.model, self.train.batches(8)[0][0])
        check_gradients(self.model, self.batches(), self.parameters)
        name = self.model._get_name() + ("" if self.parameters is None else f" {_named(parameters, self.parameters)}")
        self.cell = cell or Cell("own data", name, len(self.train.labels) // self.classes)
        if isinstance(checkpoints, dict):  # at hand already; those that are loaded when asked for are checked then
            for epoch in self.epochs:
                self.at_epoch(epoch)

    def at_epoch(self, epoch: int) -> nn.Module:
        """The checkpoint of one of `epochs`, checked.

        Raises:
            ValueError: there is none of that epoch, or it is of another architecture than the model.
        """
        if epoch not in self._checkpoints:
            raise ValueError(f"{self.cell} has no checkpoint of epoch {epoch}; there are {self.epochs}")
        network = self._checkpoints[epoch]
        check_model(network)
        found = as_classifier(network, self.batches(), self._logits)
        _check_same_architecture(found, self.model, f"the checkpoint of epoch {epoch}")
        return found

    def by_layer(self) -> Network:
        """The same network, of which `hessian_spectrum` takes the diagonal block of each layer, not the whole matrix.

        A layer is a module with parameters of its own; it has its name, such as "layer1.0.conv1".
        """
        found: dict[str, list[str]] = {}
        for name in Parameters(self.model, self.parameters).names:
            found.setdefault(f"{name.rpartition('.')[0] or name}/", []).append(name)
        network = copy.copy(self)
        network._layers = {layer: copy.copy(self) for layer in found}
        for layer, part in network._layers.items():
            part.parameters = found[layer]
        return network

    @property
    def parts(self) -> dict[str, Network]:
        """What is measured apart, by the prefix of its name: each layer of a network `by_layer`, else this alone."""
        return self._layers or {"": self}

    @property
    def dim(self) -> int:
        """P, how many parameters curvature is taken by."""
        return Parameters(self.model, self.parameters).dim

    def layers(self) -> list[str]:
        """Names of the linear and convolution layers, in the order in which they are executed.

        Raises:
            ValueError: curvature is taken by some of the parameters, or labels are of positions: layers are measured
                whole, and for one label an example.
        """
        if self.parameters is not None:
            raise ValueError("parameters=... is for matrices of the whole network; layers are measured without it")
        return layer_names(self.model, self.batches()[0][0])

    def batches(self, split: str = "train") -> list[tuple[Inputs, Tensor]]:
        """The batches that curvature is averaged over, in a fixed order; what `repro.curvature` takes as `data`."""
        chosen = {"train": self.train, "test": self.test}[split]
        if chosen is None:
            raise ValueError("no test data were given, and this is a measurement on test data: pass test=...")
        return chosen.batches(self.batch_size)

    def matrix(
        self,
        kind: type[R],
        *,
        memory_budget: int,
        model: nn.Module | None = None,
        data: list[tuple[Inputs, Tensor]] | None = None,
    ) -> R:
        """Hess, G or E of the mean loss, over `parameters`.

        Args:
            kind: `Hessian`, `GaussNewton` or `HessianResidual` of `repro.curvature`.
            memory_budget: bytes for the graphs that it keeps between products.
            model: another of the same architecture, such as a checkpoint.
            data: by default the training data.
        """
        return kind(
            self.model if model is None else model,
            self.batches() if data is None else data,
            parameters=self.parameters,
            memory_budget=memory_budget,
            loss=self.loss,
        )

    @property
    def has_class_structure(self) -> bool:
        """Whether the loss is the plain cross-entropy of class labels."""
        return isinstance(self.loss, SoftmaxCrossEntropy) and self.loss.class_weights is None

    def check_class_structure(self, what: str) -> None:
        """Refuse another loss than the plain cross-entropy of class labels for a measurement of class structure.

        Raises:
            ValueError: naming the measurement and the loss.
        """
        loss = self.loss
        if not self.has_class_structure:
            weighted = " with class weights" if isinstance(loss, SoftmaxCrossEntropy) else ""
            raise ValueError(
                f"{what} is of the softmax cross-entropy of class labels, and this network's loss is the"
                f" {loss.name}{weighted}: Hess, G and E of any loss are in repro.spectrum(..., loss=...)"
            )

    def check_every_class(self, chosen: Sequence[int] | None = None) -> None:
        """Refuse training data that lack a class, or one of those chosen: class means need an example of each.

        Raises:
            ValueError: naming the classes.
        """
        checks.check_classes(self.train.labels, self.classes, chosen)


def check_model(model: nn.Module) -> None:
    """Refuse a network whose curvature is not defined, as far as can be told without data.

    Raises:
        ValueError: it is in train mode, or some weight or statistic of batch norm is not finite.
    """
    checks.check_initialised(model)
    checks.check_deterministic(model)
    if training := [name or "the model" for name, module in model.named_modules() if module.training]:
        raise ValueError(f"{training[0]} is in train mode: call model.eval() first")
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    checks.check_weights(parameters)
    statistics, found = checks.statistics(model), model.named_buffers()
    buffers = {  # of others than statistics no values: an attention mask holds -inf
        name: b if name in statistics else b.new_empty(0) for name, b in found if b.dtype.is_floating_point
    }
    checks.check_weights(parameters | buffers)


def _read(data: Any, model: nn.Module, batch_size: int, unpack: Unpack | None, loss: LossLike) -> Examples:
    """The data on the model's device, in a form that fits it."""
    like = next(model.parameters())
    if isinstance(data, Examples):
        return data.to(like.device)
    if isinstance(data, Split):
        data = (data.images, data.labels)
    found = read_examples(data, like.device, batch_size, unpack, by_position=is_cross_entropy(loss))
    for x, y in found.batches(batch_size):
        checks.check_inputs(x, y, like)
    return found


def _check_outputs(model: nn.Module, batches: list[tuple[Inputs, Tensor]], loss: Loss) -> int:
    """C, after one pass to look at the outputs."""
    classes = 0
    for x, y in batches:
        try:
            outputs = logits_of(model, x)
        except (ValueError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a network raises what it likes
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise ValueError(f"the model does not take inputs of shape {describe(x)}: {reason}") from error
        loss.checked(outputs, y)
        classes = outputs[0].numel()
    return classes if isinstance(loss, SoftmaxCrossEntropy) else min(classes, USUAL_OUTLIERS)


def _named(selection: Selection, names: list[str]) -> str:
    """The parameters chosen, for captions."""
    return selection if isinstance(selection, str) else ", ".join(names) if len(names) < 4 else f"{len(names)} tensors"


def _check_same_architecture(network: nn.Module, model: nn.Module, name: str) -> None:
    found, wanted = ({key: t.shape for key, t in m.state_dict().items()} for m in (network, model))
    if differing := [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]:
        raise ValueError(f"{name} is of another architecture than the model: '{differing[0]}' differs")
