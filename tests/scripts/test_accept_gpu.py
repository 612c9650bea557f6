"""The script that accepts a GPU, tried with tiny sizes; and the CUDA graphs that it times."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PIECES = ["tests", "products", "engines", "cell"]


@pytest.mark.slow
def test_every_piece_leaves_its_rows_and_a_report(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "accept_gpu.py", "--small", "--out", tmp_path, "--pieces", *PIECES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "report.md").read_text()
    assert "failed" not in report
    tables = {piece: pd.read_csv(tmp_path / f"{piece}.csv") for piece in PIECES}
    for piece, table in tables.items():
        assert f"## {piece}" in report
        assert f"{piece}: done, {len(table)} rows" in done.stdout
        assert (table.torch == torch.__version__.partition("+")[0]).all()
    assert set(tables["tests"].outcome) == {"passed" if torch.cuda.is_available() else "skipped"}
    assert {"Hessian", "Gauss-Newton", "residual"} <= set(tables["products"].matrix)
    assert {"in_one_process", "stacked"} <= set(tables["engines"].way)
    assert (tables["engines"].images_per_second > 0).all()
    assert tables["cell"].what.str.startswith("exact G").any()


def test_a_piece_that_fails_is_told_and_the_next_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import accept_gpu

    def fails(log):
        log.row(kept=1)
        raise KeyError("no such thing")

    def works(log):
        assert not log.fits(1000, "a long one")
        with log.attempt("one of many"):
            raise ValueError("too large")
        log.row(found=2)

    monkeypatch.setattr(accept_gpu, "PIECES", {"first": (fails, 5), "second": (works, 7)})
    monkeypatch.setattr(sys, "argv", ["accept_gpu.py", "--small", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        accept_gpu.main()
    assert ended.value.code == 1
    assert pd.read_csv(tmp_path / "first.csv").kept.tolist() == [1]
    assert pd.read_csv(tmp_path / "second.csv").found.tolist() == [2]
    report = (tmp_path / "report.md").read_text()
    assert "KeyError: 'no such thing'" in report
    assert "it may take 1000: a long one" in report
    assert "- failed: one of many: ValueError: too large" in report
    shown = capsys.readouterr().out
    assert "first: 1 failures, 1 rows" in shown
    assert "second: 1 failures, 1 rows" in shown


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("way", ["graph", "stacked_graph"])
def test_a_replayed_step_is_a_step(way, monkeypatch):
    """The pipeline puts back what is done before a graph is captured; a stack's graph has done three steps by then."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import bench_sweep

    x, y = torch.randn(12, 1, 32, 32, device="cuda"), torch.arange(12, device="cuda") % 10
    of, weights = bench_sweep.recipe(1, "fp32"), []
    for chosen in (way, {"graph": "in_one_process", "stacked_graph": "stacked"}[way]):
        setting = bench_sweep.Setting("vgg11", 0.05, 2, chosen, 2 if "stacked" in way else 1, 0.0)
        with bench_sweep.repeatable("fp32"):
            (runs,) = bench_sweep.start(setting, x, of)
            runs.start_epoch([0.01] * len(runs.indices))
            for _ in range(5 if chosen == "stacked" else 2):
                runs.step(x, y)
        weights.append(getattr(runs, "runs", runs).tensors())
    replayed, plain = weights
    for name, tensor in plain.items():
        torch.testing.assert_close(replayed[name], tensor, rtol=1e-4, atol=1e-5)
