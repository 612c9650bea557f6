"""The decomposition of G against dense matrices written out from the definitions, in float64."""

import pytest
import torch
from oracles import problem
from torch import nn
from torch.func import functional_call, jacrev

from repro.curvature.cross_class import class_structure, companion_structure
from repro.linalg.operator import Dense

C = 4
PARTS = ("class", "cross", "same")


@pytest.fixture(params=[(6, 6, 6, 6), (9, 3, 1, 7)], ids=["balanced", "unbalanced"])
def case(request):
    return problem(request.param)


def extended_gradients(model, data):
    """g [N, C', P], p [N, C'], y [N] by brute force."""
    x, y = (torch.cat(column) for column in zip(*data))
    params = {name: p.detach() for name, p in model.named_parameters()}
    J = jacrev(lambda q: functional_call(model, q, (x,)))(params)
    J = torch.cat([j.flatten(start_dim=2) for j in J.values()], dim=2)  # [N, C, P]
    p = model(x).softmax(dim=1).detach()
    residual = p[:, None, :] - torch.eye(C, dtype=p.dtype)  # [N, C', C]
    return residual @ J, p, y


def outer(v, w=1.0):
    return w * torch.outer(v, v)


def oracle(model, data):
    """The four parts, term by term as in Section 1.3 of the paper."""
    g, p, y = extended_gradients(model, data)
    w = p / len(p)
    P = g.shape[2]
    parts = {name: torch.zeros(P, P, dtype=g.dtype) for name in (*PARTS, "within")}
    for c in range(C):
        own = y == c
        weight, mean = w[own].sum(0), torch.einsum("ik,ikp->kp", w[own], g[own]) / w[own].sum(0)[:, None]
        others = [k for k in range(C) if k != c]
        class_weight = weight[others].sum()
        class_mean = (weight[others, None] * mean[others]).sum(0) / class_weight
        parts["class"] += outer(class_mean, class_weight)
        parts["same"] += outer(mean[c], weight[c])
        for k in others:
            parts["cross"] += outer(mean[k] - class_mean, weight[k])
        for k in range(C):
            for gi, wi in zip(g[own, k], w[own, k]):
                parts["within"] += outer(gi - mean[k], wi)
    G = torch.einsum("ik,ikp,ikq->pq", w, g, g)
    return parts, G


def test_the_four_parts_match_the_oracle(case):
    parts, G = oracle(*case)
    structure = class_structure(*case)
    ours = {"class": structure.class_part, "cross": structure.cross_part, "same": structure.same_part}
    for name in PARTS:
        torch.testing.assert_close(ours[name].dense(), parts[name], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(structure.within_part(Dense(G)).dense(), parts["within"], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(sum(parts.values()), G, rtol=1e-10, atol=1e-14)


def test_facts_of_the_decomposition(case):
    """(a) to (d) of Section 1.3; the unbalanced case is (d)."""
    g, p, _ = extended_gradients(*case)
    assert torch.einsum("ik,ikp->ip", p, g).abs().max() < 1e-13  # (a)
    structure = class_structure(*case)
    parts, G = oracle(*case)
    w_same = structure.weights.diagonal()
    w_class = structure.weights.sum(1) - w_same
    columns = structure.rows.diagonal()  # √w_c g_c
    torch.testing.assert_close((columns * (w_class / w_same)) @ columns.T, parts["same"])  # (b)
    p_own = w_same / structure.weights.sum(1)
    torch.testing.assert_close(w_class / w_same, (1 - p_own) / p_own)
    assert torch.linalg.matrix_rank(parts["class"], hermitian=True) <= C
    assert torch.linalg.matrix_rank(parts["cross"], hermitian=True) <= C * (C - 2)  # (c)
    assert torch.linalg.matrix_rank(G, hermitian=True) <= len(p) * (C - 1)
    torch.testing.assert_close(structure.weights.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_leaving_the_own_label_out_of_within_breaks_the_identity(case):
    """The sum over c' in G_within includes c' = c: without it the parts do not add up to G."""
    parts, G = oracle(*case)
    g, p, y = extended_gradients(*case)
    own = torch.zeros_like(G)
    for c in range(C):
        w, v = p[y == c, c] / len(p), g[y == c, c]
        v = v - (w[:, None] * v).sum(0) / w.sum()
        own += (w[:, None] * v).T @ v
    assert (sum(parts.values()) - own - G).abs().max() > 1e-6


def test_eigenvalues_from_gram_matrices(case):
    structure, (parts, _) = class_structure(*case), oracle(*case)
    for name in PARTS:
        values = structure.gram().eigenvalues(name)
        expected = torch.linalg.eigvalsh(parts[name]).flip(0)
        torch.testing.assert_close(values, expected[: len(values)], rtol=1e-10, atol=1e-14)
        assert expected[len(values) :].abs().max() < 1e-12 * expected[0]


@pytest.mark.parametrize("structure", [class_structure, companion_structure])
def test_eigenvalues_of_fewer_parameters_than_means_are_those_of_the_gram_matrix(structure):
    """Where P < C² they are taken from P x P matrices: there are zeros among them."""
    torch.manual_seed(0)
    data = [(torch.randn(24, 3).double(), torch.arange(24) % 8)]
    gram = structure(nn.Linear(3, 8).double().eval(), data).gram()
    long = gram._replace(products=gram.rows, short_rows=None)
    assert gram.short_rows.shape == (8 * 8, 3 * 8 + 8)
    assert gram.products is None
    for name in PARTS:
        torch.testing.assert_close(gram.eigenvalues(name), long.eigenvalues(name), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(gram.eigenvalues_of_sum(), long.eigenvalues_of_sum(), rtol=1e-10, atol=1e-14)
    assert len(gram.eigenvalues("cross")) == 8 * 6
    torch.testing.assert_close(gram.class_means(), long.class_means(), rtol=1e-10, atol=1e-14)
    for part in ("class", "cross"):
        A, B = (gram.short_rows.T @ each.orthonormal(part, 1e-16) for each in (gram, long))
        torch.testing.assert_close(A @ A.T, B @ B.T, rtol=0, atol=1e-6)
        torch.testing.assert_close(A.T @ A, torch.eye(A.shape[1], dtype=A.dtype), rtol=0, atol=1e-6)


def test_gram_of_the_means(case):
    g, p, y = extended_gradients(*case)
    means = torch.stack([(p[y == c, :, None] * g[y == c]).sum(0) / p[y == c].sum(0)[:, None] for c in range(C)])
    weights = torch.stack([p[y == c].sum(0) for c in range(C)])
    for c in range(C):
        others = [k for k in range(C) if k != c]
        means[c, c] = (weights[c, others, None] * means[c, others]).sum(0) / weights[c, others].sum()
    rows = means.flatten(0, 1)
    torch.testing.assert_close(class_structure(*case).gram().means(), rows @ rows.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("part", PARTS)
def test_subtraction_removes_one_part_and_projection_its_span(case, part):
    structure, (parts, G) = class_structure(*case), oracle(*case)
    left = structure.knockout(Dense(G), part, how="subtraction").dense()
    torch.testing.assert_close(left, G - parts[part], rtol=1e-9, atol=1e-13)
    B = structure.basis(part)
    torch.testing.assert_close(B.T @ B, torch.eye(B.shape[1], dtype=B.dtype))
    torch.testing.assert_close(B @ (B.T @ parts[part]), parts[part], rtol=1e-8, atol=1e-13)
    projected = structure.knockout(Dense(G), part, how="projection").dense()
    assert (projected @ B).abs().max() < 1e-12
    if part == "class":  # fact (b): the projection takes G_{c=c'} away too
        assert torch.linalg.matrix_norm(B @ (B.T @ parts["same"]) - parts["same"]) < 1e-12


def test_knockout_of_within_leaves_the_other_three(case):
    structure, (parts, G) = class_structure(*case), oracle(*case)
    left = structure.knockout(Dense(G), "within", how="subtraction")
    torch.testing.assert_close(left.dense(), G - parts["within"], rtol=1e-9, atol=1e-13)
    with pytest.raises(ValueError, match="no small basis"):
        structure.knockout(Dense(G), "within", how="projection")
    with pytest.raises(ValueError, match="not the 'subtract' of 'class'"):
        structure.knockout(Dense(G), "class", how="subtract")


def test_companion_is_the_unweighted_decomposition(case):
    g, p, y = extended_gradients(*case)
    delta, N = p.sqrt()[:, :, None] * g, len(y)
    G0, G1, G2 = (torch.zeros(g.shape[2], g.shape[2], dtype=g.dtype) for _ in range(3))
    for c in range(C):
        share, mean = (y == c).sum() / N, delta[y == c].mean(0)  # [C', P]
        others = mean[[k for k in range(C) if k != c]]
        G0 += outer(mean[c], share)
        G1 += (C - 1) * outer(others.mean(0), share)
        G2 += (C - 1) * share * torch.cov(others.T, correction=0)
    structure = companion_structure(*case)
    torch.testing.assert_close(structure.same_part.dense(), G0)
    torch.testing.assert_close(structure.class_part.dense(), G1)
    torch.testing.assert_close(structure.cross_part.dense(), G2)
    _, G = oracle(*case)
    within = torch.zeros_like(G)
    for c in range(C):
        for k in range(C):
            within += (y == c).sum() / N * torch.cov(delta[y == c, k].T, correction=0).reshape(G.shape)
    torch.testing.assert_close(structure.within_part(Dense(G)).dense(), within)
    torch.testing.assert_close(structure.gram().eigenvalues("class"), torch.linalg.eigvalsh(G1).flip(0)[:C])


def test_a_class_without_examples_has_no_weight():
    model, data = problem((6, 0, 6, 6))
    structure = class_structure(model, data)
    assert structure.weights[1].sum() == 0
    assert structure.rows[1].abs().max() == 0
    assert structure.gram().eigenvalues("class").isfinite().all()


def test_two_classes_have_no_cross_part():
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    structure = class_structure(model, [(torch.randn(8, 3).double(), torch.arange(8) % 2)])
    assert structure.cross_part.dense().abs().max() < 1e-15
    assert len(structure.gram().eigenvalues("cross")) == 0
    assert structure.basis("cross").shape == (8, 0)
    G = torch.randn(8, 8).double()
    torch.testing.assert_close(structure.knockout(Dense(G), "cross", how="projection").dense(), G)


def test_single_precision_is_as_good_as_its_format():
    """Float32 against float64 on the same network: 1e-5 of the norm of each part."""
    model, data = problem((6, 6, 6, 6))
    parts, _ = oracle(model, data)
    single = class_structure(model.float(), [(x.float(), y) for x, y in data])
    for name, part in zip(PARTS, (single.class_part, single.cross_part, single.same_part)):
        error = torch.linalg.matrix_norm(part.dense().double() - parts[name]) / torch.linalg.matrix_norm(parts[name])
        assert error < 1e-5


@pytest.mark.parametrize("gain", [1e-3, 30.0, 1e3])
def test_parts_survive_flat_and_saturated_probabilities(gain):
    """Single precision where probabilities are nearly equal, nearly one or zero, or underflow."""
    model, data = problem((6, 6, 6, 6))
    with torch.no_grad():
        model[-1].weight *= gain
    exact = class_structure(model, data).gram()
    single = class_structure(model.float(), [(x.float(), y) for x, y in data]).gram()
    scale = max(float(exact.eigenvalues(part)[0]) for part in PARTS)
    for part in PARTS:
        error = (single.eigenvalues(part) - exact.eigenvalues(part)).abs().max()
        assert error <= 1e-4 * scale


def test_inner_products_over_many_parameters_keep_their_digits():
    """Rows of four million parameters with a common mean, where a plain float32 sum is wrong in the fourth digit."""
    torch.manual_seed(0)
    model = nn.Linear(1 << 21, 2, bias=False)
    data = [(1 + torch.rand(4, 1 << 21), torch.arange(4) % 2)]
    with torch.no_grad():
        model.weight.mul_(1e-3)
    exact = class_structure(model.double(), [(x.double(), y) for x, y in data]).gram()
    single = class_structure(model.float(), data).gram()
    for a, b in ((single.weights, exact.weights), (single.rows, exact.rows), (single.same, exact.same)):
        assert (a - b).norm() < 2e-6 * b.norm()
