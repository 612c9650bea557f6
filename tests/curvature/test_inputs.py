"""Networks with inputs, outputs and labels of every form against double backward on the user's own module."""

from collections import UserDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import DataLoader, Dataset, TensorDataset

import repro
from repro.curvature.batches import batch_list, by_class
from repro.curvature.class_parts import ClassParts
from repro.curvature.cross_class import class_structure
from repro.curvature.exact import exact_spectrum
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian, HessianResidual
from repro.curvature.many_classes import class_gram
from repro.watch import Progress, current

CLOSE = {"rtol": 0, "atol": 1e-12}
B, T, C = 6, 5, 3


class Tagger(nn.Module):
    """Tokens, and a mask of those that count -> logits at each token, [B, T, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, C)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        h = self.embed(tokens)
        scores = (self.mix(h) @ h.mT).masked_fill(mask[:, None] == 0, -1e9) if mask is not None else h @ h.mT
        return self.head(torch.tanh(scores.softmax(dim=-1) @ h))


class Pooled(Tagger):
    """One row of logits for each text."""

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(tokens, mask).mean(dim=1)


class Segmenter(nn.Module):
    """Images -> logits at each pixel, [B, C, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, C, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Wrapped(nn.Module):
    """Another network whose output is something else than a tensor."""

    def __init__(self, inside: nn.Module, wrap) -> None:
        super().__init__()
        self.inside, self.wrap = inside, wrap

    def forward(self, *args, **kwargs):
        return self.wrap(self.inside(*args, **kwargs))


@pytest.fixture
def texts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, mask, a label for each text and labels of tokens, of which the second half of a text has none."""
    generator = torch.Generator().manual_seed(0)
    tokens, mask = torch.randint(1, 7, (B, T), generator=generator), torch.ones(B, T, dtype=torch.int64)
    labels = torch.randint(C, (B, T), generator=generator)
    mask[2, 3:], labels[2, 3:], labels[4] = 0, -100, -100
    return tokens, mask, torch.arange(B) % C, labels


def products(model: nn.Module, loss: Callable[[], Tensor], outputs: Callable[[], Tensor], v: Tensor) -> list[Tensor]:
    """Hess v, G v = J^T (diag p − p p^T) J v / N and (Hess − G) v by torch's double backward on the module itself."""
    parameters = list(model.parameters())

    def gradient(y: Tensor, u: Tensor | None = None) -> Tensor:
        found = torch.autograd.grad(y, parameters, u, create_graph=True, materialize_grads=True)
        return torch.cat([g.reshape(-1) for g in found])

    hessian = gradient(gradient(loss()) @ v)
    logits = outputs()  # [N, C]
    u = torch.ones_like(logits, requires_grad=True)
    (Jv,) = torch.autograd.grad(gradient(logits, u) @ v, u)
    p = logits.softmax(dim=1).detach()
    gauss_newton = gradient(logits, p * (Jv - (p * Jv).sum(dim=1, keepdim=True)) / len(p))
    return [hessian, gauss_newton, hessian - gauss_newton]


def check(model: nn.Module, data, loss: Callable[[], Tensor], outputs: Callable[[], Tensor], **how) -> repro.Network:
    """Products with Hess, G and E of the network on the data are those of the module itself."""
    network = repro.Network(model, data, batch_size=4, **how)
    v = torch.randn(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    for kind, expected in zip((Hessian, GaussNewton, HessianResidual), products(model, loss, outputs, v)):
        torch.testing.assert_close(kind(network.model, network.batches()) @ v, expected.detach(), **CLOSE)
    return network


class Texts(Dataset):
    def __init__(self, texts) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return B

    def __getitem__(self, i: int):
        tokens, mask, y, _ = self.texts
        return {"tokens": tokens[i], "mask": mask[i], "labels": y[i]}


class Fields(NamedTuple):
    tokens: Tensor
    mask: Tensor


FORMS = {
    "pair": (lambda t, m, y: ((t, m), y), {}),
    "list": (lambda t, m, y: ([t, m], y), {}),
    "named": (lambda t, m, y: (Fields(t, m), y), {}),
    "mapping": (lambda t, m, y: {"tokens": t, "mask": m, "labels": y}, {}),
    "encoding": (lambda t, m, y: UserDict(tokens=t, mask=m, labels=y), {}),
    "mapping in a pair": (lambda t, m, y: ({"tokens": t, "mask": m}, y), {}),
    "numpy": (lambda t, m, y: {"tokens": t.numpy(), "mask": m.numpy(), "labels": y.numpy()}, {}),
    "odd numpy": (lambda t, m, y: ((t.numpy()[::-1].copy()[::-1], np.broadcast_to(m, m.shape)), y), {}),
    "dataset": (lambda t, m, y: Texts((t, m, y, y)), {}),
    "loader": (lambda t, m, y: DataLoader(Texts((t, m, y, y)), batch_size=4), {}),
    "three": (
        lambda t, m, y: DataLoader(TensorDataset(t, m, y), batch_size=4),
        {"unpack": lambda batch: (batch[:2], batch[2])},
    ),
    "one tensor": (
        lambda t, m, y: torch.cat([t, m, y[:, None]], dim=1),
        {"unpack": lambda rows: ((rows[:, :T], rows[:, T : 2 * T]), rows[:, -1])},
    ),
    "nested": (
        lambda t, m, y: ({"text": {"tokens": t, "mask": m}}, y),
        {"logits": lambda model, x: model(**x["text"])},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_inputs_of_any_form(texts, form):
    torch.manual_seed(0)
    (tokens, mask, y, _), model = texts, Pooled().double().eval()
    make, how = FORMS[form]
    network = repro.Network(model, make(tokens, mask, y), batch_size=4, **how)
    expected = torch.autograd.grad(cross_entropy(model(tokens, mask), y), list(model.parameters()))
    found = GaussNewton(network.model, network.batches()).gradient()
    torch.testing.assert_close(found, torch.cat([g.reshape(-1) for g in expected]), **CLOSE)
    assert [name for name, _ in network.model.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert (network.cell.model, len(network.train.labels)) == ("Pooled", B)


OUTPUTS = {
    "object": (lambda z: SimpleNamespace(logits=z, loss=None), {}),
    "mapping": (lambda z: {"logits": z, "hidden": z + 1}, {}),
    "tuple": (lambda z: (z, z + 1), {}),
    "else": (lambda z: {"out": (z, None)}, {"logits": lambda model, x: model(*x)["out"][0]}),
    "transposed": (lambda z: (None, z.T), {"logits": lambda model, x: model(*x)[1].T}),
}


@pytest.mark.parametrize("form", OUTPUTS)
def test_outputs_of_any_form(texts, form):
    torch.manual_seed(0)
    wrap, how = OUTPUTS[form]
    (tokens, mask, y, _), inside = texts, Pooled().double().eval()
    x = (tokens, mask)
    check(Wrapped(inside, wrap).eval(), (x, y), lambda: cross_entropy(inside(*x), y), lambda: inside(*x), **how)


def test_one_tensor_with_an_output_of_another_form_for_the_operators_themselves():
    """They need no `Network`."""
    torch.manual_seed(0)
    inside, x, y = nn.Linear(4, C).double(), torch.randn(B, 4).double(), torch.arange(B) % C
    wrapped, parts = Wrapped(inside, lambda z: (z,)).eval(), class_structure(inside.eval(), [(x, y)])
    torch.testing.assert_close(Hessian(wrapped, [(x, y)]).dense(), Hessian(inside, [(x, y)]).dense(), **CLOSE)
    torch.testing.assert_close(class_structure(wrapped, [(x, y)]).rows, parts.rows, **CLOSE)


def test_wrappers_are_taken_off(texts):
    tokens, mask, y, _ = texts
    model = nn.DataParallel(Pooled().double().eval()).eval()
    network = repro.Network(model, ((tokens, mask), y))
    assert next(name for name, _ in network.model.named_parameters()) == "embed.weight"
    assert network.cell.model == "Pooled"


def by_rows(labels: Tensor, logits: Tensor) -> Tensor:  # labels [B, ...], logits [B, ..., C]
    return logits[labels != -100]


def test_tokens_with_labels(texts):
    torch.manual_seed(0)
    (tokens, mask, _, y), model = texts, Tagger().double().eval()
    batch = {"tokens": tokens, "mask": mask, "labels": y}
    loss = lambda: cross_entropy(model(tokens, mask).flatten(0, 1), y.flatten())  # noqa: E731
    network = check(model, batch, loss, lambda: by_rows(y, model(tokens, mask)))
    assert float(loss().detach()) == pytest.approx(Hessian(network.model, network.batches()).loss)
    assert len(network.train.labels) == int((y != -100).sum()) == 23
    assert sum(len(x.chosen) for x, _ in network.batches()) == B - 1  # one text has no label at all


def test_pixels_with_labels():
    torch.manual_seed(0)
    model, x = Segmenter().double().eval(), torch.randn(4, 1, 3, C).double()  # as many columns as classes
    y = torch.randint(C, (4, 3, C))
    y[0, 1], y[3, 2, 1] = -100, -100
    check(model, (x, y), lambda: cross_entropy(model(x), y), lambda: by_rows(y, model(x).movedim(1, -1)))


@pytest.mark.parametrize(("peer", "kind"), [("HessianLinearOperator", Hessian), ("GGNLinearOperator", GaussNewton)])
def test_pixels_agree_with_curvlinops(peer, kind):
    peers = pytest.importorskip("curvlinops")
    torch.manual_seed(0)
    model, x, y = Segmenter().double().eval(), torch.randn(4, 1, 3, 5).double(), torch.randint(C, (4, 3, 5))
    y[0, 1] = -100
    theirs = getattr(peers, peer)(model, nn.CrossEntropyLoss(), list(model.parameters()), [(x, y)])
    v = torch.randn(theirs.shape[1], dtype=torch.float64)
    torch.testing.assert_close(kind(model, [(x, y)]) @ v, (theirs @ v).detach(), **CLOSE)


def gradient(model: nn.Module, row: Tensor, u: Tensor) -> Tensor:  # logits [C], [C] -> [P]
    found = torch.autograd.grad(row, list(model.parameters()), u, retain_graph=True)
    return torch.cat([g.reshape(-1) for g in found])


def positions(texts):
    """A network with labels of tokens, what it is as one of single rows, and the gradients g_{i,c'} of those."""
    torch.manual_seed(0)
    (tokens, mask, _, y), model = texts, Tagger().double().eval()
    network = repro.Network(model, {"tokens": tokens, "mask": mask, "labels": y}, batch_size=4)
    logits = by_rows(y, model(tokens, mask))
    p, labels = logits.softmax(dim=1).detach(), y[y != -100]
    g = torch.stack([torch.stack([gradient(model, row, q - e) for e in torch.eye(C)]) for row, q in zip(logits, p)])
    return network, p, labels, g


def test_class_structure_by_position(texts):
    network, p, y, g = positions(texts)
    members = one_hot(y, C).double()
    mass = members.T @ p / len(y)
    means = torch.einsum("ic,ik,ikp->ckp", members, p, g) / len(y) / mass[:, :, None]
    others = mass * (1 - torch.eye(C))
    class_means = torch.einsum("ck,ckp->cp", others, means) / others.sum(dim=1, keepdim=True)
    apart = means - class_means[:, None]
    expected = {
        "class": torch.einsum("c,cp,cq->pq", others.sum(dim=1), class_means, class_means),
        "cross": torch.einsum("ck,ckp,ckq->pq", others, apart, apart),
        "same": torch.einsum("c,cp,cq->pq", mass.diagonal(), means.diagonal().T, means.diagonal().T),
    }
    structure = class_structure(network.model, network.batches())
    G = GaussNewton(network.model, network.batches())
    assert structure.origin is not None
    structure.origin.check_same(G.origin())
    V = torch.randn(G.dim, 2, dtype=torch.float64)
    for part, matrix in expected.items():
        torch.testing.assert_close(structure.part(part) @ V, matrix @ V, **CLOSE)
        torch.testing.assert_close(ClassParts(G).without([part]) @ V, G @ V - matrix @ V, **CLOSE)
    small = class_gram(network.model, network.batches(), memory_budget=C**2 * 8 * 20)  # in slices of 20 parameters
    torch.testing.assert_close(small.rows, structure.gram().rows, **CLOSE)


def test_exact_spectrum_by_position(texts):
    network, _, _, _ = positions(texts)
    found = exact_spectrum(network.model, network.batches())
    G, structure = GaussNewton(network.model, network.batches()), class_structure(network.model, network.batches())
    dense = G.dense()
    expected = torch.linalg.eigvalsh(dense).flip(0)[: 23 * (C - 1)]
    np.testing.assert_allclose(found.eigenvalues, expected.numpy()[: len(found.eigenvalues)], atol=1e-12)
    parts = structure.class_part + structure.cross_part + structure.same_part
    largest = float(torch.linalg.eigvalsh(dense - parts.dense())[-1])
    assert float(found.arrays["within_largest"]) == pytest.approx(largest, rel=1e-9)


def test_diagonal_and_tracker_by_position(texts):
    network, _, _, _ = positions(texts)
    (tokens, mask, _, y), model = texts, network.model.network
    data, chosen = {"tokens": tokens, "mask": mask, "labels": y}, {"parameters": "mix", "batch_size": 4}
    G = GaussNewton(network.model, network.batches(), parameters="mix").dense()
    found = repro.moments(model, data, matrix="gauss_newton", **chosen)
    torch.testing.assert_close(found.diagonal.value, G.diagonal(), **CLOSE)
    track = repro.Tracker(data, examples=3, outliers=2, **chosen)
    track(model, 0)
    track(model, 1)
    half = repro.Network(model, {"tokens": tokens[::2], "mask": mask[::2], "labels": y[::2]}, **chosen)
    hessian = Hessian(half.model, half.batches(), parameters="mix").dense()
    np.testing.assert_allclose(track.frame()["sharpness"], float(torch.linalg.eigvalsh(hessian)[-1]), rtol=1e-4)


def test_regrouping_leaves_each_label_once(texts):
    tokens, mask, _, y = texts
    grouped = list(by_class(batch_list([((tokens[:3], mask[:3]), y[:3]), ((tokens[3:], mask[3:]), y[3:])])))
    seen = torch.zeros(C, 7, dtype=torch.int64)
    for c, x in grouped:
        assert bool(x.chosen.any(dim=1).all())
        seen[c] += x.inputs[0][x.chosen].bincount(minlength=7)
    expected = torch.stack([tokens[y == c].bincount(minlength=7) for c in range(C)])
    torch.testing.assert_close(seen, expected)


def test_texts_of_several_lengths(texts):
    """Each batch is padded to a length of its own, as collators do."""
    torch.manual_seed(0)
    (tokens, mask, y, _), model = texts, Pooled().double().eval()
    data = [((tokens[:2, :4], mask[:2, :4]), y[:2]), ((tokens[2:], mask[2:]), y[2:])]
    logits = lambda: torch.cat([model(*x) for x, _ in data])  # noqa: E731
    check(model, data, lambda: cross_entropy(logits(), y), logits)


def test_measurements_of_layers_by_keywords(texts):
    torch.manual_seed(0)
    (tokens, mask, y, labels), model = texts, Pooled().double().eval()
    network = repro.Network(model, {"tokens": tokens, "mask": mask, "labels": y})
    assert list(repro.measure("layer_features", network).arrays["layers"]) == ["mix", "head", "logits"]
    assert list(repro.measure("kronecker_factors", network, layers=[1], steps=8).arrays["layers"]) == ["head"]
    by_token = repro.Network(Tagger().double().eval(), {"tokens": tokens, "mask": mask, "labels": labels})
    with pytest.raises(ValueError, match=r"labels at several positions .* choose a measurement of the whole network"):
        repro.measure("layer_errors", by_token)


def hessian_of(*parameters: Tensor, loss: Tensor) -> Tensor:
    """By torch's double backward, one row at a time."""
    first = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    rows = [torch.autograd.grad(g, parameters, retain_graph=True) for g in first]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])


def test_one_network_of_its_layers(texts, tmp_path):
    torch.manual_seed(0)
    (tokens, mask, y, _), model = texts, Pooled().double().eval()
    data = {"tokens": tokens, "mask": mask, "labels": y}
    found = repro.spectrum(model, data, by="layer", spectra=["train_hessian", "train_gauss_newton"], outliers=2)
    assert found.spectra[::2] == [f"{layer}/train_hessian" for layer in ("embed", "mix", "head")]
    x = (tokens, mask)
    own = torch.linalg.eigvalsh(hessian_of(model.mix.weight, model.mix.bias, loss=cross_entropy(model(*x), y)))
    largest = own[own.abs().argsort(descending=True)][:2].numpy()
    np.testing.assert_allclose(found.outliers("mix/train_hessian"), largest, atol=1e-9)
    alone = repro.spectrum(model, data, parameters="mix", spectra=["train_hessian"], outliers=2)
    np.testing.assert_allclose(alone.outliers("train_hessian"), largest, atol=1e-9)
    assert (alone.cell.model, alone.provenance["parameters"]) == ("Pooled mix", ["mix.weight", "mix.bias"])
    titles = [ax.get_title() for ax in found.plot().axes]
    assert len(titles) == 6
    assert "Pooled mix" in titles[1]
    found.save(tmp_path / "layers.npz")
    assert repro.load(tmp_path / "layers.npz").spectra == found.spectra


def test_layers_that_were_measured_before_a_stop_are_drawn(texts):
    torch.manual_seed(0)
    (tokens, mask, y, _), model = texts, Pooled().double().eval()

    def stop(progress: Progress) -> None:
        if progress.part == 3:  # the first of two of the second layer
            current().stop("enough")

    chosen = ["train_hessian", "train_gauss_newton"]
    found = repro.spectrum(model, ((tokens, mask), y), by="layer", spectra=chosen, outliers=2, progress=stop)
    assert not found.complete
    assert found.spectra == ["embed/train_hessian", "embed/train_gauss_newton", "mix/train_hessian"]
    assert len(found.plot().axes) == 2  # those of the first layer


def test_some_parameters_in_every_function(texts):
    torch.manual_seed(0)
    (tokens, mask, y, _), model = texts, Pooled().double().eval()
    data, chosen = {"tokens": tokens, "mask": mask, "labels": y}, {"parameters": lambda name: "mix" in name}
    structure = repro.class_structure(model, data, **chosen)
    assert structure.rows.shape == (C, C, 20)
    parts = repro.knockouts(model, data, steps=8, **chosen).arrays
    np.testing.assert_allclose(parts["class_part"], structure.gram().eigenvalues("class"), atol=1e-12)
    exact = repro.exact_spectrum(model, data, **chosen)
    np.testing.assert_allclose(exact.arrays["class_part"], parts["class_part"], atol=1e-12)
    with pytest.raises(ValueError, match="layers are measured without"):
        repro.measure("layer_features", repro.Network(model, data, **chosen))


def _network(x, y, model=None, **how):
    return repro.Network((model or Tagger()).double().eval(), (x, y) if y is not None else x, **how)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda t, m, y, l: _network({"tokens": t, "mask": m}, None), "mapping of tokens, mask, without 'labels'"),
        (lambda t, m, y, l: _network([(t, m, y)], None), "a tuple of 3: a pair .* unpack=lambda batch"),
        (lambda t, m, y, l: _network({"tokens": t, "text": ["a"] * B}, y), r"at \['text'\]\[0\], are of type str"),
        (lambda t, m, y, l: _network({}, y), "inputs of a batch are of type dict"),
        (lambda t, m, y, l: _network(t, y.tolist()), "the labels of a batch are a list: one tensor or numpy array"),
        (lambda t, m, y, l: _network((t, m[:2]), y), r"inputs \(\[6, 5\], \[2, 5\]\) and targets \[6\]"),
        (lambda t, m, y, l: _network({"tokens": t, "masks": m}, l), r"does not take inputs .*masks"),
        (lambda t, m, y, l: _network(t, l[:, :4]), r"logits \[5, 5, 3\] for labels \[5, 4\]: logits \[B, T, C\]"),
        (lambda t, m, y, l: _network(t, l, logits=lambda model, x: model(x).mT), r"logits \[5, 3, 5\] for labels"),
        (lambda t, m, y, l: _network(t, l, Pooled()), "logits .5, 3. for labels .5, 5.: exactly one label for each"),
        (lambda t, m, y, l: _network(t, torch.full_like(l, -100)), "no data: .* a label other than -100"),
        (lambda t, m, y, l: _network(t, y, Wrapped(Pooled(), lambda z: None)), "returns a NoneType, .* logits=lambda"),
        (lambda t, m, y, l: _network(t, None, unpack=lambda batch: batch), "unpack returns a Tensor: a pair"),
        (lambda t, m, y, l: _network([{"tokens": t[0], "labels": y[0]}], None), "single examples"),
        (
            lambda t, m, y, l: _network({"input_ids": t, "labels": t.masked_fill(m == 0, -100)}, None),
            "the labels are the input_ids themselves, .* unpack=",
        ),
        (
            lambda t, m, y, l: repro.spectrum(Pooled().double().eval(), ((t, m), y), by="layers"),
            "by is 'layers': it is 'layer'",
        ),
        (lambda t, m, y, l: _network(t, y, Pooled(), parameters="haed"), "no parameter is selected by 'haed'"),
    ],
)  # fmt: skip
def test_mistakes_get_a_sentence(texts, call, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence) as caught:
        call(*texts)
    assert "\n" not in str(caught.value)
