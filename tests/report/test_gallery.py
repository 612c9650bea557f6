"""The gallery links what it copies."""

import re
from pathlib import Path

import pytest

from repro.figures import draw
from repro.report.gallery import FILLED, numbers, write_gallery, write_score


def test_every_link_has_its_picture(root, cells, tmp_path):
    for number in ("3", "x1"):
        draw(root, number, cells, "tiny")
    page = tmp_path / "docs" / "gallery.md"
    write_gallery(root, {"3": cells, "x1": cells}, page)
    links = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text())
    assert links == ["gallery/fig03.png", "gallery/x01.png"]
    for link in links:
        assert (page.parent / link).read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_is_not_drawn_is_an_error(root, cells, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"figure 15 is not drawn yet .*; run `make figures` first"):
        write_gallery(root, {"15": []}, tmp_path / "gallery.md")


def test_texts_are_no_html_and_no_links(root, cells, tmp_path, monkeypatch):
    for number in ("3", "x1"):
        draw(root, number, cells, "tiny")
    evil = tmp_path / "<script>alert(1)</script> & [a](javascript:alert(1))".replace("/", "|")
    root.rename(evil)
    page = tmp_path / "docs" / "gal lery.md"
    write_gallery(evil, {"3": cells}, page)
    text = page.read_text()
    assert "<" not in text
    assert "&lt;script&gt;" in text
    assert " &amp; &#91;a&#93;(javascript" in text
    assert "](gal%20lery/fig03.png)" in text
    evil.rename(root)


def test_what_is_known_of_the_paper_stands_apart(root, cells, tmp_path):
    draw(root, "3", cells, "tiny")
    write_gallery(root, {"3": cells}, tmp_path / "gallery.md")
    paragraphs = (tmp_path / "gallery.md").read_text().split("\n\n")
    assert paragraphs[-1].startswith("*About the paper: ")
    assert "reading" not in paragraphs[-2]


def test_what_is_written_by_hand_is_kept_above_numbers_and_figures(root, cells, tmp_path):
    draw(root, "3", cells, "tiny")
    page = tmp_path / "page.md"
    page.write_text(f"# By hand\n\nText.\n\n{FILLED}\nof last time\n")
    for _ in range(2):
        write_gallery(root, {"3": cells, "15": []}, page)
        text = page.read_text()
        assert text.endswith("\nNot drawn yet: Figures 15.\n")
        assert text.startswith(f"# By hand\n\nText.\n\n{FILLED}\n\n## Numbers\n")
        assert text.count(FILLED) == text.count("## Figure 3.") == 1
        assert "of last time" not in text
        assert "| measure hessian_spectrum |" in text
        assert "\n".join(numbers(tmp_path / "page")) in text  # from what was copied beside it


def test_the_numbers_of_the_true_scale_page_are_those_of_the_results_beside_it():
    page = Path(__file__).parents[2] / "docs" / "true-scale.md"
    assert "\n".join(numbers(page.with_suffix(""))) in page.read_text(encoding="utf-8"), (
        "a claim has changed, or how a table is written: run `make gallery EXPERIMENT=true_scale` again"
    )


def test_the_score_goes_between_its_marks_and_nothing_else_changes(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# a\n\n<!-- score -->old \\1<!-- /score -->\nb\n")
    for score in ("27 of 30 claims hold", "a \\1 b"):
        write_score(readme, score)
        assert readme.read_text() == f"# a\n\n<!-- score -->{score}.<!-- /score -->\nb\n"


def test_a_readme_without_marks_is_refused_and_kept(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# a\n")
    with pytest.raises(ValueError, match="needs one line with"):
        write_score(readme, "1 of 1")
    assert readme.read_text() == "# a\n"
