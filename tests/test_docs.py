"""The tutorial runs as it stands, the documentation builds without a warning, and what it names is there."""

import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def run_page(page):
    """Execute the Python blocks of a page one after the other; their names."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return names


def test_other_losses_run():
    names = run_page("docs/how-to/own-network.md")
    tops = [names[name].outliers("train_gauss_newton")[0] for name in ("squared", "multi_label", "huber", "smoothed")]
    assert len(set(tops)) == len(tops)
    assert min(tops) > 0


def test_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(run_page("docs/tutorial.md")) > 8
    written = {path.name for path in tmp_path.iterdir()}
    assert {"hessian_and_its_parts.png", "knockouts.png", "features.png", "spectrum.npz"} <= written


def test_the_page_about_training_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page("docs/how-to/during-training.md")
    assert names["track"].frame()["epoch"].tolist() == [0, 2, 4]
    assert names["curvature"].track.frame()["sharpness"].gt(0).tolist() == [True, True]
    assert {path.name for path in tmp_path.iterdir()} == {"curvature.png"}
    hf, torch = names["transformers"], names["torch"]
    config = hf.DistilBertConfig(vocab_size=9, max_position_embeddings=6, dim=8, hidden_dim=8, n_layers=1, n_heads=2)
    model = hf.DistilBertForSequenceClassification(config)
    texts = [{"input_ids": torch.randint(1, 9, (6,)), "labels": i % 2} for i in range(8)]
    callback = names["TrackTransformer"](names["DataLoader"](texts, batch_size=4), outliers=1)
    callback.on_epoch_end(None, hf.TrainerState(epoch=0.99), None, model=model, optimizer=None)
    assert (callback.track.frame()["epoch"].tolist(), model.training) == ([1], True)


def test_the_page_about_transformers_runs(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    names = run_page("docs/how-to/transformers.md")
    assert names["head"].arrays["class_part"].shape == (3,)
    assert len(names["layers"].spectra) == 4  # query, key, value and output
    assert len(names["exact"].eigenvalues) == 8 * 5 * 8  # 5 labelled positions of each text, and C − 1 of C words
    assert (tmp_path / "layers.png").stat().st_size > 0


def test_the_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    page = (tmp_path / "concepts/class-structure.html").read_text()
    assert "<math" in page
    assert "$" not in re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)  # every formula was understood


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page):
    text = page.read_text()
    for path in re.findall(r"`((?:repro|conf|scripts|docs)/[\w/.]*\w/?)`", text):
        assert (ROOT / path).exists() or path == "conf/site/local.yaml", path  # that one is the reader's
    for name in re.findall(r"`(repro(?:\.\w+)+)`", text):
        pkgutil.resolve_name(name)
