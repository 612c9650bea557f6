"""How a network is run to be differentiated twice: which of torch's shortcuts must stay out of the way.

The function that the network computes stays the same; what changes is how torch computes it and its derivatives.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

Rule = Callable[..., Tensor | None]  # the arguments of an operation -> its result, or None to leave it to torch


class Rules(TorchFunctionMode):
    """While active, operations of torch that have a rule are computed by it."""

    def __init__(self, rules: dict[Any, Rule]):
        super().__init__()
        self.rules = rules

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = self.rules.get(function)
        found = rule(*args, **(kwargs or {})) if rule else None
        return function(*args, **(kwargs or {})) if found is None else found


class Differentiable(Rules):
    """Operations that torch cannot differentiate twice, or differentiates to something else, by ones that it can.

    Attributes:
        fixed: (weight, row) of embeddings whose padding row was met: torch gives it no gradient, so it is no parameter.
    """

    def __init__(self) -> None:
        super().__init__({F.hardsigmoid: _hardsigmoid, torch._weight_norm: _weight_norm, F.embedding: self.embedding})
        self.fixed: list[tuple[Tensor, int]] = []

    def embedding(
        self,
        input: Tensor,
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Tensor:
        """The gradient is dense, and not divided by how often a row occurs: that would not be the derivative."""
        if max_norm is not None:
            raise ValueError(
                "an embedding with max_norm changes its weights in the forward pass, so the network is no function of"
                " its weights: scale the weights to that norm once, and set max_norm=None"
            )
        found = F.embedding(input, weight)
        if padding_idx is None:
            return found
        self.fixed.append((weight, padding_idx))
        padding = input == padding_idx % len(weight)  # torch.vmap forgets padding_idx
        return torch.where(padding[..., None], found.detach(), found)


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """As torch's own, which has no second derivative."""
    return F.relu6(input + 3) / 6


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """As torch's own, whose second derivative is wrong."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


class Lowest(TorchFunctionMode):
    """While active, notes the lowest precision of any result.

    Attributes:
        dtype: float64 in the beginning.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dtype = torch.float64

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            self.dtype = max(self.dtype, result.dtype, key=lambda dtype: torch.finfo(dtype).eps)
        return result


class Upcast(TorchFunctionMode):
    """While active, every operation works in double precision, also on constants and where the network asks for less.

    In it a network whose weights are float64 is a smooth function to finite differences, whatever it does inside.
    """

    WIDER: ClassVar = {torch.float32: torch.float64, torch.float16: torch.float64, torch.bfloat16: torch.float64}
    WIDER[torch.complex64] = torch.complex128
    SAME: ClassVar = {Tensor.float: Tensor.double, Tensor.half: Tensor.double, Tensor.bfloat16: Tensor.double}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(self.widen, (args, kwargs or {}))
        return tree_map(self.widen, self.SAME.get(function, function)(*args, **kwargs))

    def widen(self, x: Any) -> Any:
        if isinstance(x, torch.dtype):
            return self.WIDER.get(x, x)
        return x.to(self.WIDER[x.dtype]) if isinstance(x, Tensor) and x.dtype in self.WIDER else x


@contextmanager
def own_precision(device: str) -> Iterator[None]:
    """Compute in the dtype of the tensors, also for a caller who has autocast or TF32 on.

    PyTorch's default lets cuDNN round the operands of float32 convolutions to the ten bits of TF32.

    Raises:
        ValueError: the caller is in torch.inference_mode, where nothing can be differentiated.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError("nothing can be differentiated under torch.inference_mode: use torch.no_grad instead")
    cudnn: Any = torch.backends.cudnn
    backends = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device, enabled=False):
            yield
    finally:
        for backend, value in zip(backends, before):
            backend.fp32_precision = value


@contextmanager
def _without_cudnn() -> Iterator[None]:
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


@contextmanager
def _without_fast_attention() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _uncached() -> Iterator[None]:
    depth, cache = parametrize._cache_enabled, parametrize._cache
    parametrize._cache_enabled, parametrize._cache = 0, {}
    try:
        yield
    finally:
        parametrize._cache_enabled, parametrize._cache = depth, cache


@contextmanager
def evaluation(model: nn.Module, *modes: TorchFunctionMode) -> Iterator[Differentiable]:
    """Run the network so that its derivatives can be taken, first and second, and with `modes`, the last one first.

    Attention is computed by its formula, as the fused kernels have no second derivative, and those of encoder layers in
    eval mode give other outputs at padding; autocast and TF32 are off, as their rounding is not smooth; compiled
    functions are run as they are written; recurrent layers do without cuDNN.
    """
    device = next((tensor.device.type for tensor in model.parameters()), "cpu")
    with ExitStack() as stack:
        for context in (own_precision(device), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH)):
            stack.enter_context(context)
        stack.enter_context(_without_fast_attention())
        if "torch._dynamo" in sys.modules:  # nothing is compiled where it was never imported
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if device == "cuda" and any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(_without_cudnn())
        if parametrize._cache_enabled:  # a cached weight is one of other parameters
            stack.enter_context(_uncached())
        differentiable = stack.enter_context(Differentiable())
        for mode in modes:
            stack.enter_context(mode)
        yield differentiable
