"""The page is about the figures that the task names, and tells how the networks were trained."""

from cells import small, store_outcomes

from repro.pipeline import tasks
from repro.pipeline.stages.figures import Draw
from repro.pipeline.stages.report import Report
from repro.pipeline.stages.select import Select


def test_page_and_score(tmp_path, capsys):
    store_outcomes(tmp_path, small(), {0: 0.5, 1: 0.3, 2: 0.4})
    cell = small().cell
    tasks.run(Select(root=tmp_path, experiment="x", expected={cell: (0, 1, 2)}, missing_allowed=0))
    tasks.run(Draw(root=tmp_path, experiment="x", figure="x1", cells=(cell,)))
    capsys.readouterr()
    tasks.run(Report(root=tmp_path, experiment="x", figures={"x1": (cell,)}, cells={cell: small()}))
    html = (tmp_path / "report" / "index.html").read_text()
    assert "Figure x1" in html
    assert "Figure 3" not in html
    assert capsys.readouterr().out == "claims: 0 of 0 claims hold, 30 are not measured\n"
