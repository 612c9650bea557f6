"""Grids become lists of tasks: the paper's 18 000 trainings, axes from the command line, cells of a figure."""

import json
import shutil
from pathlib import Path

import pytest

from repro.pipeline.blocks import training_petaflop
from repro.pipeline.experiment import CONF, Experiment
from repro.pipeline.tasks import STAGES
from repro.storage.results import Cell


def trainings(stages):
    return [(str(task.config["data"]["name"]), task.config["model"]["name"], task.config["n_per_class"], i)
            for task in stages["sweep"] for i in task.config["lr_indices"]]  # fmt: skip


@pytest.fixture(scope="module")
def paper():
    return Experiment(["experiment=paper", "launch=slurm"])


@pytest.fixture(scope="module")
def papers_sweep(paper):
    return paper.stages()["sweep"]


def test_the_papers_grid(paper, papers_sweep):
    found = trainings({"sweep": papers_sweep})
    assert len(found) == len(set(found)) == 4 * 2 * 20 * 100 + 4 * 20 * 25
    assert len(paper.cells()) == 4 * 3 * 20
    sizes = {n for data, _, n, _ in found if data == "cifar100"}
    assert (min(sizes), max(sizes)) == (10, 500)
    epochs = {(c.data, c.model): config["training"]["epochs"] for c, config in paper.cells().items()}
    assert epochs["mnist", "vgg11"] == epochs["fashion_mnist", "resnet18"] == 200
    assert epochs["cifar10", "vgg11"] == epochs["cifar100", "resnet18"] == epochs["mnist", "mlp"] == 350


def test_axes_from_the_command_line_replace_the_grids():
    found = trainings(Experiment(["experiment=paper", "data=mnist", "n_per_class=10,13", "lr_index=0-2"]).stages())
    assert len(found) == 3 * 2 * 3
    assert {(data, n) for data, _, n, _ in found} == {("mnist", 10), ("mnist", 13)}


def test_other_overrides_hold_for_every_task_and_tasks_are_json():
    stages = Experiment(["experiment=smoke", "training.epochs=7", "device=cpu"]).stages()
    assert list(stages) == list(STAGES)
    for tasks in stages.values():
        for task in tasks:
            assert json.loads(json.dumps(task.config)) == task.config
    assert {task.config["training"]["epochs"] for task in stages["sweep"] + stages["measure"]} == {7}


def test_the_launcher_cuts_blocks():
    whole = Experiment(["experiment=smoke", "launch.rates_per_task=100"]).stages()["sweep"]
    single = Experiment(["experiment=smoke", "launch.rates_per_task=1"]).stages()["sweep"]
    assert [len(task.config["lr_indices"]) for task in whole] == [3, 3]
    assert [len(task.config["lr_indices"]) for task in single] == [1] * 6


def test_one_slurm_array_holds_the_papers_sweep(paper, papers_sweep):
    work = [training_petaflop(task.config) * len(task.config["lr_indices"]) for task in papers_sweep]
    assert len(papers_sweep) <= 1001  # MaxArraySize, if a site does not change it
    assert max(work) <= paper.launch["petaflop_per_task"] < max(work) * 1.01
    mnist = {len(task.config["lr_indices"]) for task in papers_sweep if task.name.startswith("mnist/vgg11/n10/")}
    assert mnist == {100}  # cheap cells stay whole
    of_one_figure = paper.stages(["5"])["sweep"]
    assert of_one_figure == [task for task in papers_sweep if task.name.startswith("cifar10/vgg11/n136/")]


def test_a_figure_needs_only_its_cells():
    experiment = Experiment(["experiment=smoke"])
    stages = experiment.stages(["3"])
    assert experiment.figure_cells("3") == [Cell("fashion_mnist_embedded", "mlp", 6)]
    assert {task.config["n_per_class"] for task in stages["sweep"]} == {6}
    assert [task.name for task in stages["measure"]] == ["fashion_mnist_embedded/mlp/n6/hessian_spectrum"]
    assert not stages["report"]


def test_the_experiment_sets_a_measurement_and_the_command_line_has_the_last_word():
    def steps(*overrides):
        (task,) = Experiment(["experiment=smoke", *overrides]).stages(["3"])["measure"]
        return task.config["measurement"]["steps"]

    assert steps() == 12
    assert steps("measurements.hessian_spectrum.steps=5") == 5


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data=mnits"], "mnits"),
        (["trainng.epochs=3"], "trainng"),
        (["training.epochz=3"], "epochz"),
        (["n_per_class="], "n_per_class"),
        (["n_per_class=size99"], "size0 to size"),
        (["lr_index=7-9"], "empty axis"),
        (["lr_index=9"], "outside the grid"),
        (["experiment=papr"], "papr"),
        (["training.epochs=???"], "training.epochs"),
        (["+measurements.hessian_spectrum.step=3"], "step"),
        (["training.epochs={"], "training.epochs"),
        (["name=../../x"], r"name=../../x would be no folder below outputs"),
        (["name=a/../../x"], "would be no folder below outputs"),
        (["name=/x"], "would be no folder below outputs"),
        (["name=."], "would be no folder below outputs"),
        (["launch=slurm", "launch.stages.sweep.memm=3GB"], "memm"),
        (["launch=slurm", "launch.stages.swep.mem=3GB"], "swep"),
    ],
)
def test_mistakes_get_a_sentence(overrides, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        Experiment(["experiment=smoke", *overrides]).stages()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["weights/mine", "a b", "..x", "5"])
def test_names_of_experiments(name):
    assert Experiment(["experiment=smoke", f"name='{name}'", "outputs=out"]).root == Path("out") / name


def test_every_resource_can_be_set_for_all_stages_or_for_one():
    of_all = ["launch.resources.mem=3GB", "launch.resources.partition=gpu"]
    of_one = ["launch.stages.sweep.mem=64GB", "launch.stages.report.partition=null", "launch.stages.select.setup=[a]"]
    launch = Experiment(["experiment=smoke", "launch=slurm", *of_all, *of_one]).launch
    assert {stage: of["mem"] for stage, of in launch["stages"].items()} == {
        "sweep": "64GB", "select": "3GB", "retrain": "3GB", "measure": "32GB", "figures": "3GB", "report": "3GB",
    }  # fmt: skip
    assert [of["partition"] for of in launch["stages"].values()] == ["gpu"] * 5 + [None]
    assert launch["stages"]["select"]["setup"] == ["a"]
    assert all(of.keys() == launch["resources"].keys() | {"tasks_per_job"} for of in launch["stages"].values())


@pytest.mark.parametrize("first", ["", "# @package site\n", "# my cluster\n"])
def test_a_site_file_that_would_not_hold_is_named(tmp_path, first):
    shutil.copytree(CONF, tmp_path / "conf")
    site = tmp_path / "conf" / "site" / "local.yaml"
    site.parent.mkdir(exist_ok=True)
    site.write_text("# @package _global_\nlaunch: {resources: {partition: gpu}}\n")
    overrides = ["experiment=smoke", "launch=slurm"]
    assert Experiment(overrides, tmp_path / "conf").launch["stages"]["sweep"]["partition"] == "gpu"
    site.write_text(f"{first}launch: {{resources: {{partition: gpu}}}}\n")
    with pytest.raises(ValueError, match=r"conf/site/local.yaml lacks the first line `# @package _global_`"):
        Experiment(overrides, tmp_path / "conf")


def test_a_figure_the_experiment_does_not_draw():
    with pytest.raises(ValueError, match="does not draw figure 5; it draws 3, x1"):
        Experiment(["experiment=smoke"]).stages(["5"])
    with pytest.raises(ValueError, match="no cell"):
        Experiment(["experiment=smoke", "n_per_class=4"]).stages(["3"])


def test_a_narrowed_grid_draws_the_figures_that_have_cells_left():
    def drawn(*overrides):
        return [task.config["figure"] for task in Experiment(["experiment=smoke", *overrides]).stages()["figures"]]

    assert drawn() == ["3", "x1"]
    assert drawn("n_per_class=4") == ["x1"]
    assert drawn("n_per_class=6") == ["3", "x1"]


def test_scripts_retrain_and_measure_look_at_all_rates_of_a_cell():
    from hydra import compose, initialize_config_dir

    from repro.pipeline.experiment import CONF, measure_task, retrain_task

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("measure", ["experiment=smoke", "n_per_class=6", "lr_index=1"])
    assert retrain_task(cfg).config["lr_indices"] == measure_task(cfg, ()).config["lr_indices"] == [0, 1, 2]


def test_a_narrowed_grid_leaves_the_gallery_alone():
    smoke = ["experiment=smoke", "gallery=gallery.md"]
    assert Experiment(smoke).stages()["report"][0].config["gallery"] == "gallery.md"
    assert Experiment([*smoke, "n_per_class=6"]).stages()["report"][0].config["gallery"] is None
