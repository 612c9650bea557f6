"""Which arrays an experiment becomes, and what each waits for."""

from launching import changed

from repro.pipeline.launch.chain import chain


def test_chain_packs_splits_and_depends(stages, launch):
    arrays = chain(stages, changed(launch, retries=1, sweep={"tasks_per_job": 2}), array_size=2)
    assert [(a.stage, a.attempt, [len(c) for c in a.chunks]) for a in arrays[:4]] == [
        ("sweep", 0, [2, 2]), ("sweep", 0, [1]), ("sweep", 1, [2, 2]), ("sweep", 1, [1]),
    ]  # fmt: skip
    ids = [str(position) for position in range(len(arrays))]
    assert [(a.stage, a.dependency(ids)) for a in arrays] == [
        ("sweep", None),
        ("sweep", None),
        ("sweep", "afterany:0:1"),
        ("sweep", "afterany:0:1"),
        ("select", "afterany:2:3"),
        ("retrain", "afterok:4"),
        ("retrain", "afterok:4,afterany:5"),
        ("measure", "afterok:4,afterany:6"),
        ("measure", "afterok:4,afterany:7"),
        ("figures", "afterok:4,afterany:8"),
        ("report", "afterok:4,afterany:9"),
    ]
    assert [len(c) for c in arrays[-2].chunks] == [2]  # null: all figures in one job


def test_chain_leaves_out_what_is_finished(stages, launch, finish):
    finish(*stages["sweep"], *stages["retrain"])
    arrays = chain(stages, launch, array_size=1000)
    assert [a.stage for a in arrays] == ["select", "measure", "measure", "measure", "figures", "report"]
    assert arrays[0].dependency([]) is None


def test_chain_computes_again_what_is_forced(stages, launch, finish, force):
    finish(*stages["sweep"])
    stages["sweep"] = force(*stages["sweep"])
    (array, *_) = chain(stages, launch, array_size=1000)
    assert sum(len(chunk) for chunk in array.chunks) == 5
