"""Shares, overlaps and angles of a tiny network against dense eigenvectors."""

import numpy as np
import pytest
import torch
from dense import dense_parts

from repro.curvature.cross_class import class_structure
from repro.curvature.hessian import Hessian
from repro.measurements import alignment

C = 4


@pytest.mark.parametrize(
    ("limit", "classes"), [(0, None), (6000, None), (6000, [3, 1]), (6000, [2])], ids=["Lanczos", "exact", "two", "one"]
)
def test_alignment_by_dense_eigenvectors(tiny, limit, classes):
    settings = alignment.Settings(eigenvectors=6, tolerance=1e-8, max_products=80, exact_limit=limit, classes=classes)
    arrays = alignment.measure(tiny, settings)
    G, parts = dense_parts(tiny, classes)
    structure, K = class_structure(tiny.model, tiny.batches(), classes=classes), len(classes or range(C))
    assert len(arrays["cross_part"]) == (K * (K - 1) if classes else C * (C - 2))
    for name, A in (("hessian", Hessian(tiny.model, tiny.batches()).dense()), ("gauss_newton", G)):
        values, U = (t.flip(-1) for t in torch.linalg.eigh(A))
        np.testing.assert_allclose(arrays[f"{name}_eigenvalues"], values[:6], rtol=1e-8)
        pieces = parts | {"residual": A - G}
        for part, matrix in pieces.items():
            share = ((matrix @ U) * U).sum(0)[:6] / values[:6]
            np.testing.assert_allclose(arrays[f"{name}_share_{part}"], share, atol=1e-6)
        np.testing.assert_allclose(sum(arrays[f"{name}_share_{part}"] for part in pieces), 1, rtol=1e-10)
        for part in ("class", "cross"):
            overlaps = (structure.basis(part).T @ U).square().sum(0)[:6]
            np.testing.assert_allclose(arrays[f"{name}_overlap_{part}"], overlaps, atol=1e-6)
        cosines = torch.linalg.svdvals(structure.basis("class").T @ U[:, :K])
        np.testing.assert_allclose(arrays[f"{name}_class_cosines"], cosines, atol=1e-6)


def test_principal_cosines_of_known_planes():
    """Planes that share a direction and meet at 60 degrees in the other."""
    A = torch.eye(4, dtype=torch.float64)[:, :2]
    B = torch.zeros(4, 2, dtype=torch.float64)
    B[0, 0], B[1, 1], B[2, 1] = 1, 0.5, np.sqrt(0.75)
    torch.testing.assert_close(alignment.cosines(A.T @ B), torch.tensor([1, 0.5], dtype=torch.float64))
