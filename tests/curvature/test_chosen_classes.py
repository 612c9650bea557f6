"""Class structure of some of the classes, against dense matrices written out from its definition, in float64."""

import pytest
import torch
from oracles import dense_gauss_newton, dense_jacobian, problem
from torch import nn

import repro
from repro.curvature.class_parts import ClassParts
from repro.curvature.cross_class import class_structure, companion_structure
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.many_classes import class_gram
from repro.linalg.operator import Dense

C = 4
PARTS = ("class", "cross", "same")
CLOSE = {"rtol": 1e-9, "atol": 1e-13}
CHOSEN = [[2, 0], [1], [3, 1, 0], [2, 3, 0, 1]]


@pytest.fixture(scope="module")
def case():
    return problem((6, 3, 1, 7))


@pytest.fixture(scope="module")
def dense(case):
    return extended_gradients(*case)


def extended_gradients(model, data):
    """g [N, C', P], p [N, C'], y [N], and G."""
    x, y = (torch.cat(column) for column in zip(*data))
    p = model(x).softmax(dim=1).detach()
    g = (p[:, None, :] - torch.eye(p.shape[1], dtype=p.dtype)) @ dense_jacobian(model, x)
    return g, p, y, dense_gauss_newton(model, x, y)


def oracle(dense, classes, *, companion=False):
    """Each term in which both classes are chosen, as it is in the decomposition of all classes."""
    g, p, y, G = dense
    w, every = p / len(p), range(p.shape[1])
    if companion:
        g, w = p.sqrt()[:, :, None] * g, torch.full_like(p, 1 / len(p))
    parts = {part: torch.zeros(g.shape[2], g.shape[2], dtype=g.dtype) for part in PARTS}
    for c in classes:
        own, others = y == c, [k for k in every if k != c]
        weight = w[own].sum(dim=0)
        mean = torch.einsum("ik,ikp->kp", w[own], g[own]) / weight[:, None]
        class_mean = weight[others] @ mean[others] / weight[others].sum()
        parts["class"] += weight[others].sum() * class_mean.outer(class_mean)
        parts["same"] += weight[c] * mean[c].outer(mean[c])
        for k in set(classes) - {c}:
            parts["cross"] += weight[k] * (mean[k] - class_mean).outer(mean[k] - class_mean)
    return parts, G


@pytest.mark.parametrize("companion", [False, True], ids=["paper", "companion"])
@pytest.mark.parametrize("classes", CHOSEN, ids=str)
def test_parts_and_their_eigenvalues(case, dense, classes, companion):
    parts, G = oracle(dense, classes, companion=companion)
    structure = (companion_structure if companion else class_structure)(*case, classes=classes)
    gram, K = structure.gram(), len(classes)
    for name in PARTS:
        torch.testing.assert_close(structure.part(name).dense(), parts[name], **CLOSE)
        values, expected = gram.eigenvalues(name), torch.linalg.eigvalsh(parts[name]).flip(0)
        torch.testing.assert_close(values, expected[: len(values)], **CLOSE)
        assert (expected[len(values) :] < 1e-12).all()
    rest = structure.within_part(Dense(G)).dense()
    torch.testing.assert_close(rest + sum(parts.values()), G, **CLOSE)
    assert len(gram.eigenvalues("cross")) == (K * (K - 1) if K < C else C * (C - 2))
    if not companion:
        assert torch.linalg.eigvalsh(rest)[0] > -1e-13
        values = gram.eigenvalues_of_sum()
        torch.testing.assert_close(values, torch.linalg.eigvalsh(sum(parts.values())).flip(0)[: len(values)], **CLOSE)
        whole = class_structure(*case).class_means()
        torch.testing.assert_close(structure.class_means(), whole[classes], **CLOSE)
        torch.testing.assert_close(gram.class_means(), whole[classes] @ whole[classes].T, **CLOSE)


def test_eigenvalues_of_fewer_parameters_than_means():
    torch.manual_seed(0)
    model, y = nn.Linear(3, 8).double().eval(), torch.arange(24) % 8
    data, classes = [(torch.randn(24, 3).double(), y)], [7, 0, 3, 2, 5, 1]
    parts, _ = oracle(extended_gradients(model, data), classes)
    gram = class_gram(model, data, memory_budget=1 << 20, classes=classes)
    assert gram.products is None
    expected = torch.linalg.eigvalsh(parts["cross"]).flip(0)
    torch.testing.assert_close(gram.eigenvalues("cross"), expected[: 6 * 5], **CLOSE)


@pytest.mark.parametrize("companion", [False, True], ids=["paper", "companion"])
def test_slices_give_the_gram_of_the_means(case, companion):
    classes, structure = [3, 0], companion_structure if companion else class_structure
    found = class_gram(*case, memory_budget=8 * 4 * 11, companion=companion, classes=classes)
    for a, b in zip(found, structure(*case, classes=classes).gram()):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("classes", CHOSEN, ids=str)
def test_products_with_g_without_the_chosen_parts(case, dense, classes):
    parts, G = oracle(dense, classes)
    found = ClassParts(GaussNewton(*case), classes)
    U = torch.randn(len(G), 2, dtype=G.dtype)
    for name in PARTS:
        torch.testing.assert_close(found.without([name]) @ U, (G - parts[name]) @ U, **CLOSE)
    torch.testing.assert_close(found.without(PARTS) @ U, (G - sum(parts.values())) @ U, **CLOSE)
    contributions, rows = found.contributions(U), class_structure(*case, classes=classes).rows
    for name in PARTS:
        torch.testing.assert_close(contributions[name], (U * (parts[name] @ U)).sum(dim=0), **CLOSE)
    torch.testing.assert_close(found.coordinates(U), rows.flatten(0, 1) @ U, **CLOSE)


@pytest.mark.parametrize("part", PARTS)
def test_knockouts_of_the_structure(case, dense, part):
    classes = [3, 0]
    parts, G = oracle(dense, classes)
    structure, operator = class_structure(*case, classes=classes), GaussNewton(*case)
    U = torch.randn(len(G), 2, dtype=G.dtype)
    left = structure.knockout(operator, part, how="subtraction")
    torch.testing.assert_close(left @ U, (G - parts[part]) @ U, **CLOSE)
    B = structure.basis(part)
    assert B.shape[1] == 2
    torch.testing.assert_close(B @ (B.T @ parts[part]), parts[part], **CLOSE)
    other = problem((6, 3, 1, 7), seed=1)
    with pytest.raises(ValueError, match="of different weights"):
        structure.knockout(GaussNewton(*other), part, how="subtraction")


def test_labels_at_positions_of_which_few_are_classes_asked_for():
    """As in a language model: most tokens are no label of any position."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 3), nn.Tanh(), nn.Linear(3, 9)).double().eval()
    tokens, y = torch.randint(9, (4, 5)), torch.tensor([2, 7, -100, 2, 5]).expand(4, 5)
    structure = repro.class_structure(model, (tokens, y), classes=[7, 2])
    flat = y.flatten() != -100
    parts, G = oracle(extended_gradients(model, [(tokens.flatten()[flat], y.flatten()[flat])]), [7, 2])
    for name in PARTS:
        torch.testing.assert_close(structure.part(name).dense(), parts[name], **CLOSE)
    network = repro.Network(model, (tokens, y))
    found = ClassParts(GaussNewton(network.model, network.batches()), [7, 2]).without(PARTS)
    U = torch.randn(len(G), 2, dtype=G.dtype)
    torch.testing.assert_close(found @ U, (G - sum(parts.values())) @ U, **CLOSE)


def test_a_large_vocabulary_takes_no_memory_of_its_square():
    """C = 200 000: a matrix of C² numbers would be 160 GB."""
    torch.manual_seed(0)
    model = nn.Linear(1, 200_000, bias=False).eval()
    data = [(torch.randn(4, 1), torch.tensor([5, 199_999, 7, 5]))]
    structure, G = class_structure(model, data, classes=[5, 7]), GaussNewton(model, data)
    v = torch.randn(G.dim)
    taken = (G @ v) - ClassParts(G, [5, 7]).without(PARTS) @ v
    expected = sum(structure.part(name) @ v for name in PARTS)
    torch.testing.assert_close(taken, expected, rtol=1e-3, atol=1e-5 * float(expected.norm()))
    structure.within_part(G)  # which checks that both are of one network


@pytest.mark.parametrize(
    ("classes", "match"),
    [
        ([], "at least one class index"),
        ([1, 1], "each once"),
        ([-1], "from 0"),
        ([4], "there is no class 4, the model has 4"),
        ([0.5], "a list of class indices is needed"),
        (2, "classes is 2: a list of class indices is needed"),
        ("01", "a list of class indices is needed"),
    ],
)
def test_no_classes_of_the_model(case, classes, match):
    for call in (class_structure, lambda *case, **chosen: ClassParts(GaussNewton(*case), **chosen)):
        with pytest.raises(ValueError, match=match):
            call(*case, classes=classes)
    with pytest.raises(ValueError, match=match):
        class_gram(*case, classes=classes, memory_budget=1 << 20)


def test_classes_without_examples():
    model, data = problem((6, 0, 1, 7))
    with pytest.raises(ValueError, match=r"no example of the classes \[1\]"):
        class_structure(model, data, classes=[1])
    with pytest.raises(ValueError, match=r"no training example of class 1 \(1 of 2 classes\).*or leave it out"):
        repro.class_structure(model, data, classes=[0, 1])
    assert repro.class_structure(model, data, classes=[0, 2]).class_means().shape[0] == 2


def test_what_does_not_fit_is_refused_before_it_starts_with_the_setting_that_helps(case):
    model, data = case
    with pytest.raises(ValueError, match=r"needs 9.73e-06 GB .* 4² means of 76 .* some of the classes with classes="):
        repro.class_structure(model, data, memory_budget=9000)
    assert repro.class_structure(model, data, classes=range(3), memory_budget=9000).rows.shape == (3, 3, 76)
