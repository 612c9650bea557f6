"""How the inner products of the rows of G are added up: the cheaper way for each layer, within a budget of memory.

The rows b_{i,k} (see `softmax_root`) of a layer that acts at T positions are Σ_t e_{i,k,t} ⊗ h_{i,t}: errors [O] and
features [D]. Their inner products take, in multiplications for each pair of rows,

    O D                                    from the rows themselves,
    T² D / (C−1)² + T² O / (C−1) + T O     from Σ_{t,s} <h_{i,t}, h_{j,s}> <e_{i,k,t}, e_{j,l,s}>,

and a row takes O D numbers, or T (O + D / (C−1)) as errors and features. What is no plain layer (see
`layers.factored_layers`), such as batch norm, has rows only.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

from torch import nn

from repro.curvature.inputs import Inputs
from repro.curvature.layers import factored_layers
from repro.curvature.risk import Parameters

TEMPORARY = {"cpu": 1 << 26, "cuda": 1 << 28}  # bytes that one step works on, where the budget allows
MIXING, SHORT = 1.5, 4.0  # how much more an operation costs in products of small matrices: timed on one core


class Layer(NamedTuple):
    """Some outputs of one layer, as they are held between batches."""

    name: str
    parameters: tuple[str, ...]  # those of its weight and bias that θ consists of
    positions: int  # T
    columns: slice  # the features they go with, among those of [W b]
    features: int  # D of these
    outputs: slice
    whole: tuple[int, int]  # all features, a one for the bias included, and all outputs
    factored: bool  # inner products from errors and features, or else from rows
    as_rows: bool  # what is held: rows, or else errors and features

    def numbers(self, examples: int, rows: int) -> int:
        """How many numbers are held, for `rows` rows an example."""
        O = self.outputs.stop - self.outputs.start
        if self.as_rows:
            return examples * rows * O * self.features
        return examples * self.positions * (rows * O + self.features)

    def cut(self, first: int, last: int) -> Layer:
        """The same for other outputs."""
        return self._replace(outputs=slice(first, last))


class Entries(NamedTuple):
    """Neighbouring entries of parameters that belong to no plain layer."""

    parameters: tuple[str, ...]
    size: int  # of all these parameters together
    chosen: slice  # entries of their concatenation


class Plan(NamedTuple):
    """What is held together during each pass over the data."""

    layers: list[list[Layer]]
    rest: list[Entries]
    held: int  # bytes, the most that is held during one pass
    temporary: int  # bytes that one step works on


def make_plan(model: nn.Module, x: Inputs, layout: Parameters, *, examples: int, classes: int, budget: int) -> Plan:
    """Divide the parameters into passes over the data that take no more than `budget` bytes each.

    Args:
        x: some inputs of the model, with one row of logits each.

    Raises:
        ValueError: one output of a layer, or one entry of the rest, takes more.
    """
    rows, size, temporary = (
        classes - 1,
        next(model.parameters()).element_size(),
        min(TEMPORARY[next(model.parameters()).device.type], budget // 16),
    )
    room = (budget - 4 * temporary) // size
    passes: list[list[Layer]] = []
    used: list[int] = []
    layers = plain_layers(model, x, layout, rows)
    for part in [part for layer in layers for part in _cut(layer, examples, rows, room)]:
        numbers = part.numbers(examples, rows)
        if not passes or used[-1] + numbers > room:
            passes.append([])
            used.append(0)
        passes[-1].append(part)
        used[-1] += numbers
    taken = {name for layer in layers for name in layer.parameters}
    sizes = {name: place.stop - place.start for name, place in layout.slices.items() if name not in taken}
    rest = _slices(sizes, room // (examples * rows))
    used += [examples * rows * (entries.chosen.stop - entries.chosen.start) for entries in rest]
    each = [capture_bytes(part, classes, size) for part in passes] + [classes * e.size * size for e in rest]
    return Plan(passes, rest, size * max(used), min(temporary, examples * max(each)))


def capture_bytes(layers: list[Layer], classes: int, size: int) -> int:
    """What capturing features and errors and combining errors take up for one example, in numbers of `size` bytes."""
    shapes = {layer.name: (layer.positions, *layer.whole) for layer in layers}
    return size * sum(T * (D + 2 * classes * O) for T, D, O in shapes.values())


def plain_layers(model: nn.Module, x: Inputs, layout: Parameters, rows: int) -> list[Layer]:
    """The layers of which Σ_t e_t ⊗ h_t is the whole gradient, each with the way that is cheaper."""
    if any(module.training for module in model.modules()):  # `capture` refuses these, though `checks` allows them
        return []
    found = []
    for name, (T, D, O) in factored_layers(model, x).items():
        weight, bias = (f"{name}.{kind}" in layout.slices for kind in ("weight", "bias"))
        whole, inputs = (D, O), D - (model.get_submodule(name).bias is not None)
        columns = slice(0 if weight else inputs, D if bias else inputs)
        D = columns.stop - columns.start
        if D == 0:
            continue
        products = T**2 * D / rows**2 + (O if T == 1 else MIXING * T**2 * O / rows + SHORT * T * O)
        factored = products < O * D
        as_rows = not factored and T * (O + D / rows) >= O * D
        parameters = (f"{name}.weight",) * weight + (f"{name}.bias",) * bias
        found.append(Layer(name, parameters, T, columns, D, slice(0, O), whole, factored, as_rows))
    return found


def _cut(layer: Layer, examples: int, rows: int, room: int) -> list[Layer]:
    """The layer in parts of its outputs, none of which holds more than `room` numbers."""
    O = layer.outputs.stop
    fixed = layer.cut(0, 0).numbers(examples, rows)
    each = layer.cut(0, 1).numbers(examples, rows) - fixed
    step = _at_least_one(f"one output of layer {layer.name!r}", min(O, (room - fixed) // each))
    return [layer.cut(first, min(first + step, O)) for first in range(0, O, step)]


def _slices(sizes: dict[str, int], width: int) -> list[Entries]:
    """The parameters, one after the other, in slices of at most `width` entries."""
    starts = dict(zip(sizes, accumulate([0, *sizes.values()])))
    dim = sum(sizes.values())
    step = _at_least_one("one parameter", width) if dim else 1
    found: list[Entries] = []
    for first in range(0, dim, step):
        last = min(first + step, dim)
        names = tuple(name for name, start in starts.items() if start < last and start + sizes[name] > first)
        chosen = slice(first - starts[names[0]], last - starts[names[0]])
        found.append(Entries(names, sum(sizes[name] for name in names), chosen))
    return found


def _at_least_one(what: str, count: int) -> int:
    if count < 1:
        raise ValueError(f"memory_budget does not hold {what} of all examples: raise it, or take fewer examples")
    return count
