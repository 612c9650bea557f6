"""The examples in docstrings run as they stand."""

import doctest
import importlib

import pytest

WITH_EXAMPLES = (
    "repro.api",
    "repro.curvature.cross_class",
    "repro.curvature.diagonal",
    "repro.curvature.gauss_newton",
    "repro.curvature.hessian",
    "repro.linalg.eigenpairs",
    "repro.linalg.moments",
    "repro.linalg.spectrum",
    "repro.matrix",
    "repro.spectra.record",
    "repro.tracker",
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
