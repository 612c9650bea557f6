"""Grids become lists of tasks: the paper's 18 000 trainings, axes from the command line, cells of a figure."""

import os
import pickle
import shutil

import pytest
import torch

from repro.pipeline.config import CONF, STAGES
from repro.pipeline.experiment import Experiment, measure_tasks, retrain_task, sweep_task
from repro.pipeline.stages.measure import OwnWeights
from repro.storage.results import Cell

EMBEDDED = Cell("fashion_mnist_embedded", "mlp", 6)


def trainings(stages):
    return [(task.trainings.cell, index) for task in stages["sweep"] for index in task.indices]


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
    sizes = {cell.n_per_class for cell, _ in found if cell.data == "cifar100"}
    assert (min(sizes), max(sizes)) == (10, 500)
    assert {of.recipe.epochs for cell, of in paper.cells().items() if cell.data == "mnist"} == {200, 350}


def test_one_slurm_array_holds_the_papers_sweep(paper, papers_sweep):
    limit = paper.launch.petaflop_per_task
    work = [task.cost for task in papers_sweep]
    assert len(papers_sweep) <= 1001  # MaxArraySize, if a site does not change it
    assert limit / 2 < max(work) <= limit
    assert {len(task.indices) for task in papers_sweep if task.name.startswith("mnist/vgg11/n10/")} == {100}
    of_one_figure = paper.stages(["5"])["sweep"]
    assert of_one_figure == [task for task in papers_sweep if task.name.startswith("cifar10/vgg11/n136/")]


def test_any_number_of_rates_is_trained_whole():
    """The paper's axis names parts of the grid: more or fewer rates leave none out."""
    for count in (3, 7, 130):
        overrides = ["experiment=paper", "data=mnist", "model=vgg11", "n_per_class=10", f"learning_rates.count={count}"]
        assert [index for _, index in trainings(Experiment(overrides).stages())] == list(range(count))


def test_axes_from_the_command_line_replace_the_grids():
    found = trainings(Experiment(["experiment=paper", "data=mnist", "n_per_class=10,13", "lr_index=0-2"]).stages())
    assert len(found) == 3 * 2 * 3
    assert {(cell.data, cell.n_per_class) for cell, _ in found} == {("mnist", 10), ("mnist", 13)}


def test_seeds_are_an_axis():
    stages = Experiment(["experiment=smoke", "seed=0,2", "n_per_class=6"]).stages()
    assert {task.trainings.cell: task.trainings.recipe.seed for task in stages["sweep"]} == {
        EMBEDDED: 0, EMBEDDED._replace(seed=2): 2,
    }  # fmt: skip
    for stage in ("retrain", "measure"):
        assert any("/n6/seed2" in task.name for task in stages[stage])
    (select,) = stages["select"]
    assert select.expected == {EMBEDDED: (0, 1, 2), EMBEDDED._replace(seed=2): (0, 1, 2)}


def test_a_figure_may_show_one_of_the_seeds():
    stages = Experiment(["experiment=smoke", "seed=0,2", "figures.3.seed=[2]"]).stages()
    assert stages["figures"][0].cells == (EMBEDDED._replace(seed=2),)


def test_the_training_seed_is_the_cells():
    (of,) = Experiment(["experiment=smoke", "training.seed=5", "n_per_class=6"]).cells()
    assert of == EMBEDDED._replace(seed=5)


def test_other_overrides_hold_for_every_task_and_tasks_can_be_pickled():
    stages = Experiment(["experiment=smoke", "training.epochs=7", "device=cpu", "force=true"]).stages()
    assert list(stages) == ["sweep", "select", "retrain", "measure", "figures", "report"]
    for stage, tasks in stages.items():
        for task in tasks:
            assert pickle.loads(pickle.dumps(task)) == task
            assert task.stage == stage
            assert stage not in ("sweep", "retrain", "measure") or (task.device, task.force) == ("cpu", True)
    assert {task.trainings.recipe.epochs for task in stages["sweep"]} == {7}
    assert stages["measure"][0].of.trainings.recipe.epochs == 7


def test_the_launcher_cuts_blocks():
    whole = Experiment(["experiment=smoke", "launch.rates_per_task=100"]).stages()["sweep"]
    single = Experiment(["experiment=smoke", "launch.rates_per_task=1"]).stages()["sweep"]
    assert [task.indices for task in whole] == [(0, 1, 2)] * 2
    assert [task.indices for task in single] == [(0,), (1,), (2,)] * 2
    assert [task.name.rpartition("/")[2] for task in (*whole[:1], *single[:1])] == ["lr0-2", "lr0"]


def test_planning_does_not_ask_for_the_machine(monkeypatch):
    expected = Experiment(["experiment=smoke", "launch=local_gpu"]).stages()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    for name in ("device_count", "is_available", "get_device_properties"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("asked for GPUs"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: pytest.fail("asked for cores"))
    assert Experiment(["experiment=smoke", "launch=local_gpu"]).stages() == expected


def test_settings_that_only_the_chosen_network_has():
    overrides = [
        "model=own",
        "model.build=repro.models.mlp:MLP",
        "+model.layers=4",
        "+model.bias=false",
        "+model.width=0.5",
    ]
    (cell, *_), (of, *_) = zip(*Experiment(["experiment=smoke", *overrides]).cells().items())
    assert cell.model == of.model.title == "own"
    assert of.model.settings == {"layers": 4, "bias": False, "width": 0.5}


def test_a_figure_needs_only_its_cells():
    experiment = Experiment(["experiment=smoke"])
    stages = experiment.stages(["3"])
    assert experiment.figure_cells("3") == experiment.figure_cells("fig03") == [EMBEDDED]
    assert {task.trainings.cell for task in stages["sweep"]} == {EMBEDDED}
    assert [task.name for task in stages["measure"]] == ["fashion_mnist_embedded/mlp/n6/hessian_spectrum"]
    assert not stages["report"]


def test_figures_fall_back_on_lanczos_where_a_cell_is_too_large_for_the_exact_spectrum():
    def measured(key, limit):
        few = ["figures.1={model: [vgg11]}", "sizes_of.vgg11=[10, 19]", f"measurements.exact_spectrum.limit={limit}"]
        tasks = Experiment(["experiment=embedded", *few]).stages([key])["measure"]
        return sorted(task.name.partition("/vgg11/")[2] for task in tasks)

    both = ["n10/exact_spectrum", "n19/exact_spectrum"]
    assert measured("1", limit=19 * 10 * 10) == both
    assert measured("1", limit=19 * 10 * 10 - 1) == sorted([*both, "n19/dynamics"])
    assert measured("1", limit=1) == sorted([*both, "n10/dynamics", "n19/dynamics"])


def test_a_figure_of_no_network_needs_no_training():
    stages = Experiment(["experiment=embedded"]).stages(["14"])
    assert [task.name for task in stages["measure"]] == ["logistic_regression"]
    assert stages["measure"][0].of is None
    assert not any(stages[stage] for stage in ("sweep", "select", "retrain"))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data=mnits"], "there is no data=mnits; did you mean mnist"),
        (["model=vgg"], "there is no model=vgg; did you mean vgg11"),
        (["n_per_class="], "axis n_per_class of the grid is empty"),
        (["n_per_class=size99"], "size0 to size"),
        (["n_per_class=151"], r"Fashion-MNIST \(subset\) has only 150 training examples"),
        (["lr_index=1-3"], "lr_index=1-3 is outside the grid of 3 learning rates"),
        (["lr_index=9"], "outside the grid"),
        (["lr_index=4of4"], "empty axis"),
        (["+model.depth=3"], "model.depth: network 'mlp' has no such setting"),
        (["epochs_of={mpl: 3}"], "mpl"),
        (["+epochs_of.mpl=3"], r"epochs_of\.mpl: there is no such network; did you mean mlp"),
        (["+sizes_of.mpl=[4]"], r"sizes_of\.mpl: there is no such network; did you mean mlp"),
        (
            ["figures.3.data=[mnits]"],
            "figures: no cell of experiment smoke has data=mnits; there are fashion_mnist_emb",
        ),
        (["figures.3.n_per_class=[5]"], "has n_per_class=5; there are 4, 6"),
        (["launch=slurm", "launch.stages.sweep.memm=3GB"], "memm"),
        (["launch=slurm", "launch.stages.swep.mem=3GB"], "swep"),
        (["name=../../x"], "an experiment is called as its folder"),
        (["name=/x"], "an experiment is called as its folder"),
        (["name="], "an experiment is called as its folder"),
        (["name=a/b"], "an experiment is called as its folder"),
        (["+learning_rates.cuont=3"], r"no key learning_rates.cuont; did you mean learning_rates.count"),
        (["learning_rates.highest=1e-5"], "highest=1e-05, lowest=0.01, count=3 make no grid"),
        (["+foo=3"], "there is no key foo; there are"),
    ],
)
def test_mistakes_get_a_sentence(overrides, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        Experiment(["experiment=smoke", *overrides]).stages()
    assert "\n" not in str(caught.value)


def test_a_network_may_take_some_of_the_sizes():
    def cells(*overrides):
        found = Experiment(["experiment=smoke", "model=mlp,vgg11", "+sizes_of.vgg11=[6]", *overrides]).cells()
        return [(cell.model, cell.n_per_class) for cell in found]

    assert cells() == [("mlp", 4), ("mlp", 6), ("vgg11", 6)]
    assert cells("n_per_class=4") == [("mlp", 4), ("vgg11", 4)]  # as asked for


def test_every_resource_can_be_set_for_all_stages_or_for_one():
    of_all = ["launch.resources.mem=3GB", "launch.resources.partition=gpu"]
    of_one = ["launch.stages.sweep.mem=64GB", "launch.stages.report.partition=cpu", "launch.stages.select.setup=[a]"]
    launch = Experiment(["experiment=smoke", "launch=slurm", *of_all, *of_one]).launch
    of = {stage: launch.of_stage(stage) for stage in STAGES}
    assert {stage: own["mem"] for stage, own in of.items()} == {
        "sweep": "64GB", "select": "3GB", "retrain": "3GB", "measure": "32GB", "figures": "3GB", "report": "3GB",
    }  # fmt: skip
    assert [own["partition"] for own in of.values()] == ["gpu"] * 5 + ["cpu"]
    assert of["select"]["setup"] == ["a"]


@pytest.mark.parametrize("first", ["", "# @package site\n", "# my cluster\n"])
def test_a_site_file_that_would_not_hold_is_named(tmp_path, first):
    shutil.copytree(CONF, tmp_path / "conf")
    site = tmp_path / "conf" / "site" / "local.yaml"
    site.parent.mkdir(exist_ok=True)
    site.write_text("# @package _global_\nlaunch: {resources: {partition: gpu}}\n")
    overrides = ["experiment=smoke", "launch=slurm"]
    assert Experiment(overrides, tmp_path / "conf").launch.of_stage("sweep")["partition"] == "gpu"
    site.write_text(f"{first}launch: {{resources: {{partition: gpu}}}}\n")
    with pytest.raises(ValueError, match=r"conf/site/local.yaml lacks the first line `# @package _global_`"):
        Experiment(overrides, tmp_path / "conf")


def test_a_figure_the_experiment_does_not_draw():
    with pytest.raises(ValueError, match="does not draw figure 5; it draws 3, x1"):
        Experiment(["experiment=smoke"]).stages(["5"])
    with pytest.raises(ValueError, match=r"no cell of experiment smoke matches figure 3: n_per_class=\[6\]"):
        Experiment(["experiment=smoke", "n_per_class=4"]).figure_cells("3")


def test_one_figure_of_the_cells_that_the_command_line_gives():
    """They replace the axes that the experiment lists for it, the others hold, and it has files of its own."""

    def drawn(*overrides, key="4"):
        stages = Experiment(["experiment=embedded", *overrides]).stages([key])
        assert {task.trainings.cell for task in stages["sweep"]} == set(stages["figures"][0].cells)
        return [str(cell.model) + f" {cell.n_per_class}" for cell in stages["figures"][0].cells], stages["figures"][0]

    cells, task = drawn("model=vgg11", "n_per_class=26")
    assert cells == ["vgg11 26"]
    assert (task.name, task.path.name) == ("4-vgg11-n26", "fig04-vgg11-n26.png")
    cells, task = drawn("n_per_class=10")
    assert (cells, task.path.name) == (["mlp 10"], "fig04-n10.png")
    cells, task = drawn("n_per_class=10,51", "seed=1,2")
    assert cells == ["mlp 10", "mlp 51"]
    assert task.path.name == "fig04-n10+n51-seed1.png"
    for key in ("4", "04", "fig04"):
        cells, task = drawn(key=key)
        assert (cells, task.name, task.path.name) == (["mlp 19"], "4", "fig04.png")
    with pytest.raises(
        ValueError, match=r"matches figure 3: n_per_class=\[5\]; figures.3.<axis>=\[...\] gives it others"
    ):
        Experiment(["experiment=smoke", "model=mlp", "figures.3.n_per_class=[5]"]).stages(["3"])
    (of_no_network,) = Experiment(["experiment=embedded", "model=mlp"]).stages(["14"])["figures"]
    assert of_no_network.path.name == "fig14.png"


@pytest.mark.parametrize("prefix", ["", "+"])
def test_one_axis_of_a_figure_given_keeps_its_others(prefix):
    experiment = Experiment(["experiment=embedded", f"{prefix}figures.4.n_per_class=[10]"])
    assert experiment.figure_cells("4") == [EMBEDDED._replace(n_per_class=10)]


def test_a_narrowed_grid_draws_the_figures_that_have_cells_left():
    def drawn(*overrides):
        return [task.figure for task in Experiment(["experiment=smoke", *overrides]).stages()["figures"]]

    assert drawn() == ["3", "x1"]
    assert drawn("n_per_class=4") == ["x1"]
    assert drawn("n_per_class=6") == ["3", "x1"]
    assert drawn("n_per_class=4", "figures.3.n_per_class=[4]") == ["3", "x1"]


def test_a_narrowed_grid_says_which_figures_are_left_out():
    (sentence,) = Experiment(["experiment=smoke", "n_per_class=4"]).left_out()
    assert sentence.startswith("figure 3 is left out: its cells (n_per_class=[6]) are not among those asked for")
    assert Experiment(["experiment=smoke"]).left_out() == []


def test_the_gallery_is_of_a_whole_experiment_that_has_one(tmp_path):
    smoke = ["experiment=smoke", f"gallery={tmp_path}/gallery.md"]
    assert Experiment(smoke).gallery_page() == tmp_path / "gallery.md"
    with pytest.raises(ValueError, match="has no gallery"):
        Experiment(smoke[:1]).gallery_page()
    with pytest.raises(ValueError, match="whole experiment"):
        Experiment([*smoke, "n_per_class=6"]).gallery_page()


def test_all_seeds_are_measured_and_the_first_is_drawn():
    stages = Experiment(["experiment=smoke", "seed=2,1"]).stages()
    assert {task.name for task in stages["measure"]} == {
        f"fashion_mnist_embedded/mlp/n6/seed{seed}/hessian_spectrum" for seed in (1, 2)
    }
    (drawn,) = (task for task in stages["figures"] if task.figure == "3")
    assert drawn.cells == (EMBEDDED._replace(seed=1),)
    assert drawn.cells == stages["report"][0].figures["3"]
    alone = Experiment(["experiment=smoke", "seed=1,2"]).stages(["3"])
    assert [task.trainings.cell.seed for task in alone["retrain"]] == [1]


def test_what_no_claim_takes_is_measured_of_one_seed():
    cells = ["model=vgg11", "n_per_class=10", "seed=0,1"]
    measured = [task.name for task in Experiment(["experiment=embedded", *cells]).stages()["measure"]]
    assert len([name for name in measured if name.endswith("class_means")]) == 1
    assert (
        len([name for name in measured if name.endswith("gauss_newton_knockouts")]) == 1
    )  # of Figure x9, not for a claim
    assert len([name for name in measured if name.endswith("exact_spectrum")]) == 2


def test_a_figure_shows_the_seeds_that_its_experiment_lists():
    experiment = Experiment(["experiment=smoke", "seed=0,1,2", "+figures.3.seed=[0,2]"])
    assert [cell.seed for cell in experiment.figure_cells("3")] == [0, 2]
    assert len(experiment.stages()["measure"]) == 2


def test_tasks_of_the_scripts(composed, tmp_path):
    config = composed("experiment=smoke", "n_per_class=6", "lr_index=1")
    assert sweep_task(config).indices == (1,)
    assert retrain_task(config).indices == (0, 1, 2)  # the best of a cell, not of a block

    def measured(*overrides):
        return measure_tasks(composed("experiment=smoke", "n_per_class=6", *overrides))

    retrain, measure = measured("measurement=layer_features")
    assert measure.of == retrain == retrain_task(config)
    (alone,) = measured("measurement=synthetic_spectra")
    assert alone.of is None
    (own,) = measured("measurement=weights", "name=weights", f"weights={tmp_path}/mine.safetensors")
    assert isinstance(own.of, OwnWeights)
    assert own.root.parts[-2:] == ("weights", "mine")
    with pytest.raises(ValueError, match=r"no measurement 'wieghts'. Did you mean weights"):
        measured("measurement=wieghts")
