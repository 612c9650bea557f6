"""Eigenvectors of dense symmetric matrices."""

from __future__ import annotations

import scipy.linalg
import torch
from torch import Tensor


def eigh(A: Tensor) -> tuple[Tensor, Tensor]:  # [P, P] -> [P] ascending, [P, P] columns
    """torch.linalg.eigh; should it not converge, the slower QR iteration on the CPU.

    The divide and conquer of LAPACK fails on some second moments of few examples, whose eigenvalues are mostly zero.
    """
    try:
        values, vectors = torch.linalg.eigh(A)
    except torch.linalg.LinAlgError:
        found = scipy.linalg.eigh(A.cpu().numpy(), driver="ev")
        values, vectors = (torch.from_numpy(part).to(A) for part in found)
    return values, vectors
