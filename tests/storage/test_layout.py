"""A folder of results belongs to one experiment and one layout."""

import json

import pytest

from repro.storage.layout import LAYOUT, RESULTS, check_folder_is, claim_folder


def refused(sentence):
    return pytest.raises(ValueError, match=rf"\A[^\n]*{sentence}[^\n]*\Z")


def mark(root, content):
    root.mkdir(exist_ok=True)
    (root / "experiment.json").write_text(content)


def test_a_new_folder_is_claimed_and_is_ours_from_then_on(tmp_path):
    root = tmp_path / "deep" / "smoke"
    check_folder_is(root, "smoke")
    assert not root.exists()  # looking writes nothing
    for _ in range(2):
        claim_folder(root, "smoke")
    assert json.loads((root / "experiment.json").read_text()) == {"experiment": "smoke", "layout": LAYOUT}
    check_folder_is(root, "smoke")


def test_logs_alone_are_no_results(tmp_path):
    (tmp_path / "logs").mkdir()
    claim_folder(tmp_path, "smoke")


def test_the_folder_of_another_experiment_is_refused_with_both_names(tmp_path):
    claim_folder(tmp_path, "embedded")
    for look in (check_folder_is, claim_folder):
        with refused(r"the experiment 'embedded', not of 'smoke'; .*name="):
            look(tmp_path, "smoke")


@pytest.mark.parametrize("folder", RESULTS)
def test_a_folder_of_the_version_before_is_named(tmp_path, folder):
    (tmp_path / folder).mkdir()
    with refused(r"written by an earlier version of this project.*name="):
        claim_folder(tmp_path, "smoke")
    assert not (tmp_path / "experiment.json").exists()


@pytest.mark.parametrize(("layout", "age"), [(LAYOUT + 1, "a newer"), (LAYOUT - 1, "an earlier")])
def test_a_folder_of_another_layout_is_named(tmp_path, layout, age):
    mark(tmp_path, json.dumps({"experiment": "smoke", "layout": layout}))
    with refused(f"written by {age} version of this project .layout {layout}, this one has {LAYOUT}"):
        check_folder_is(tmp_path, "smoke")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"experiment": "smoke"}', '{"layout": null, "experiment": "a"}'])
def test_a_damaged_mark_is_named(tmp_path, content):
    mark(tmp_path, content)
    with refused(r"experiment\.json is damaged"):
        check_folder_is(tmp_path, "smoke")
