"""Colours that stay apart, names, and files that are reproducible to the byte."""

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from repro.figures import style

TOGETHER = [  # components drawn in one panel
    ("hessian", "gauss_newton", "residual"),
    ("gauss_newton", "class", "cross", "within", "same"),
    ("gauss_newton", "kfac", "cfac", "ekfac"),
    ("whole", "class", "cross", "within", "same"),
    ("whole", "class", "global", "within"),
    ("train", "test"),
]
# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
DEFICIENT = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


def lab(rgb):
    """CIE L*a*b* (D65) of linear RGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    x, y, z = np.cbrt(np.clip(xyz / [0.9505, 1.0, 1.089], 1e-6, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("group", TOGETHER, ids="-".join)
@pytest.mark.parametrize("vision", DEFICIENT)
def test_components_drawn_together_are_told_apart(group, vision):
    seen = {}
    for name in group:
        rgb = np.array(to_rgb(style.COLORS[name]))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen[name] = lab(np.clip(np.array(DEFICIENT[vision]) @ linear, 0, 1))
    for a, b in itertools.combinations(group, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 13, (a, b)


def test_theme_leaves_the_callers_settings_alone():
    before = dict(matplotlib.rcParams)
    with style.theme():
        assert matplotlib.rcParams["axes.spines.top"] is False
    assert dict(matplotlib.rcParams) == before


def test_saved_twice_gives_the_same_bytes(tmp_path):
    def save(folder):
        with style.theme():
            figure, axes = style.subplots(1, 2)
            axes[0, 0].plot([1, 2], [3, 4])
        return [path.read_bytes() for path in style.save_figure(figure, tmp_path / folder / "fig01")]

    assert save("a") == save("b")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["fig01.pdf", "fig01.png"]


def test_panel_letters_go_on_after_z():
    letters = list(itertools.islice(style.panel_letters(), 28))
    assert letters[:2] == ["a", "b"]
    assert letters[25:] == ["z", "aa", "ab"]
