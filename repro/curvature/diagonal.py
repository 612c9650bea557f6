"""The diagonal of G, exactly: squares of the entries of its rows (Papyan 2020, Section 6).

G = Σ b bᵀ over N (C − 1) rows b (see `softmax_root`), so its diagonal is Σ b ∘ b and its trace Σ ‖b‖². A linear layer
that acts once on each example has rows e ⊗ h, errors times features, and the squares factor too: Σ_i (Σ_k e²) ⊗ h² is
one product of matrices. Other parameters take gradients of single examples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repro.curvature.batches import Batches
from repro.curvature.classifier import prepared
from repro.curvature.exact import check_derivatives, examine
from repro.curvature.example_gradients import ExampleGradients
from repro.curvature.inputs import Inputs
from repro.curvature.layers import capture
from repro.curvature.parameters import Parameters, Selection
from repro.curvature.row_gram import small_batches
from repro.curvature.row_plan import TEMPORARY, plain_layers
from repro.curvature.softmax_root import SoftmaxRoot


def gauss_newton_diagonal(model: nn.Module, data: Batches, *, parameters: Selection = None) -> Tensor:  # -> [P]
    """The diagonal of G of `model` on `data`, in float64; its sum is tr G.

    It takes C − 1 gradients of the data for linear layers, several times that for other parameters.

    Args:
        model, data, parameters: as for `repro.curvature.gauss_newton.GaussNewton`.

    Raises:
        ValueError: data or a model that `checks` refuses; a network whose gradients are not its derivatives.

    >>> import torch
    >>> from torch import nn
    >>> from repro.curvature.gauss_newton import GaussNewton
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
    >>> data = [(torch.randn(30, 4).double(), torch.arange(30) % 3)]
    >>> torch.allclose(gauss_newton_diagonal(model, data), GaussNewton(model, data).dense().diagonal())
    True
    """
    model, batches = prepared(model, data)
    examples, layout = examine(model, batches), Parameters(model, parameters)
    check_derivatives(model, examples, layout)
    plain = plain_layers(model, examples.few, layout, examples.classes - 1)
    layers = {layer.name: layer for layer in plain if layer.positions == 1}
    taken = {name for layer in layers.values() for name in layer.parameters}
    rest = [name for name in layout.names if name not in taken]
    own, like = dict(model.named_parameters()), next(model.parameters())
    found = {name: torch.zeros_like(own[name], dtype=torch.float64) for name in layout.names}
    gradients = ExampleGradients(model, rest)
    numbers = sum(D + 2 * O for D, O in (layer.whole for layer in layers.values()))  # for each label
    numbers += 2 * sum(own[name].numel() for name in rest)
    for x, place in small_batches(examples.data, 8 * examples.classes * numbers, TEMPORARY[like.device.type]):
        root = SoftmaxRoot(examples.root.log_p[place])
        weights = root.scale.square() / len(examples.labels)  # [B, C-1]
        if layers:
            _add_layers(found, model, x, list(layers), root, weights)
        if rest:
            rows = gradients(x, root.cotangents().to(like.dtype)).double()
            squares = torch.einsum("bk,bkp->p", weights, rows.square())
            for name, piece in zip(rest, squares.split([own[name].numel() for name in rest])):
                found[name] += piece.view_as(own[name])
    return layout.flatten(found)


def _add_layers(
    found: dict[str, Tensor], model: nn.Module, x: Inputs, layers: list[str], root: SoftmaxRoot, weights: Tensor
) -> None:
    """The part of one batch in the diagonal of layers that act at one position."""
    seen = capture(model, x, layers, bias=True)
    for name in layers:
        errors = root.combine(seen.delta[name])[:, :, 0].double()  # [B, C-1, O]
        h = seen.h[name][:, 0].double()  # [B, D], with a one for the bias
        squares = torch.einsum("bk,bko->bo", weights, errors.square()).T @ h.square()
        D = squares.shape[1] - (model.get_submodule(name).bias is not None)
        for kind, part in (("weight", squares[:, :D]), ("bias", squares[:, D:])):
            if f"{name}.{kind}" in found:
                found[f"{name}.{kind}"] += part.reshape(found[f"{name}.{kind}"].shape)
