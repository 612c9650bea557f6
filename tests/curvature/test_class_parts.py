"""Products with the parts of G by derivatives of logits alone, against the parts made of their means."""

import pytest
import torch
from oracles import problem

from repro.curvature.class_parts import ClassParts, row_factors
from repro.curvature.cross_class import class_structure
from repro.curvature.gauss_newton import GaussNewton


@pytest.fixture(params=[(6, 6, 6, 6), (9, 0, 1, 7)], ids=["balanced", "a class without examples"])
def case(request):
    return problem(request.param)


@pytest.mark.parametrize("parts", [["class"], ["cross"], ["same"], ["class", "cross", "same"]])
@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_g_without_parts_is_g_minus_their_dense_matrices(case, parts, budget):
    structure, G = class_structure(*case), GaussNewton(*case, memory_budget=budget)
    expected = G.dense() - sum(structure.part(part).dense() for part in parts)
    found = ClassParts(G).without(parts)
    torch.testing.assert_close(found.dense(), expected, rtol=1e-10, atol=1e-14)


def test_contributions_and_coordinates_are_those_of_the_means(case):
    structure, G = class_structure(*case), GaussNewton(*case)
    U = torch.randn(G.dim, 3, dtype=G.dtype)
    found = ClassParts(G).contributions(U)
    for part in ("class", "cross", "same"):
        torch.testing.assert_close(found[part], (U * (structure.part(part) @ U)).sum(dim=0), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(found["whole"], (U * (G @ U)).sum(dim=0), rtol=1e-10, atol=1e-14)
    coordinates = structure.rows.flatten(0, 1) @ U
    torch.testing.assert_close(ClassParts(G).coordinates(U), coordinates, rtol=1e-10, atol=1e-14)


def test_at_a_fit_the_parts_keep_their_digits_in_float32():
    """Logits so large that every p_c is one to rounding: what is left of G is not lost in differences with one."""
    model, data = problem((6, 6, 6, 6))
    with torch.no_grad():
        model[-1].weight.mul_(30)
    exact = ClassParts(GaussNewton(model, data))
    v = torch.randn(exact.G.dim, 1, dtype=torch.float64)
    expected = exact.without(["class", "cross"]) @ v
    single = ClassParts(GaussNewton(model.float(), [(x.float(), y) for x, y in data]))
    error = (single.without(["class", "cross"]) @ v.float()).double() - expected
    assert error.norm() < 1e-4 * expected.norm()


def test_weight_decay_is_refused(case):
    with pytest.raises(ValueError, match="weight decay or class weights, which its parts do not have"):
        ClassParts(GaussNewton(*case, weight_decay=0.1))


def test_rows_of_a_class_are_combinations_of_its_sums_alone():
    weights = torch.rand(4, 4, dtype=torch.float64)
    rows = row_factors(weights / weights.sum())
    other = ~(torch.eye(4).bool()[None] | torch.eye(4).bool()[:, None])  # neither the own sum nor that of the row
    assert not rows[other.expand_as(rows)].any()
