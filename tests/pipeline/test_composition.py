"""Files and command lines become one typed configuration, and mistakes one sentence with the near matches."""

import shutil

import preloaded
import pytest

from repro.measurements import MEASUREMENTS, find_measurement
from repro.pipeline.composition import Composer, own_weights, values_of
from repro.pipeline.config import CONF
from repro.pipeline.experiment import AXES

ROOT = CONF.parent


def refused(sentence):
    return pytest.raises(ValueError, match=rf"\A[^\n]*{sentence}[^\n]*\Z")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainng.epochs=3", "there is no key trainng; did you mean training"),
        ("training.epochz=3", r"there is no key training\.epochz; did you mean training\.epochs"),
        ("+training.epochz=3", r"there is no key training\.epochz; did you mean training\.epochs"),
        ("learning_rates.cuont=3", r"did you mean learning_rates\.count"),
        ("+learning_rates.cuont=3", r"did you mean learning_rates\.count"),
        ("+foo=3", "there is no key foo; there are checkpoint_seconds, "),
        ("measurements.hessian_spectrum.stpes=3", r"did you mean measurements\.hessian_spectrum\.steps"),
        ("measurements.hesian_spectrum.steps=3", r"did you mean measurements\.hessian_spectrum"),
        ("steps=3", r"there is no key steps; did you mean measurements\.\w+\.steps"),
        ("measurement.steps=3", r"settings are measurements\.<measurement>\.<setting>"),
        ("launch.stages.sweep.memory=3", r"launch\.stages\.sweep\.memory; did you mean launch\.stages\.sweep\.mem"),
        ("model.widht=3", r"model\.widht; did you mean model\.width"),
        ("figures.3.dta=[x]", r"figures\.3\.dta; did you mean figures\.3\.data"),
        ("+figures.5={model: [mlp]}", r"are added in its file, conf/experiment/<name>\.yaml"),
        ("training=papr", "there is no training=papr; did you mean paper"),
        ("experiment=papr", r"there is no experiment=papr; did you mean paper"),
        ("~training.epochs", r"does not support deletion .key training\.epochs"),
        ("~stack_bytes", "stack_bytes is missing; ~stack_bytes took it away"),
        ("~training", r"Missing mandatory value: .*key training\."),
        ("training.epochs=???", r"Missing mandatory value: .*training\.epochs"),
        ("training.epochs=many", r"'many' .* could not be converted to Integer .key training\.epochs"),
        ("training.epochs=0", "epochs >= 1"),
        ("training={", "override .*training={"),
        ("training.batch_size=${nowhere}", "nowhere"),
        ("measurements.hessian_spectrum.spectra=[train_hesian]", "'train_hesian' is not"),
        ("learning_rates.highest=1e-5", "highest=1e-05, lowest=0.01"),
        ("engine=fast", "engine=fast: it must be sequential or stacked"),
        ("device=gpu", "device=gpu"),
        ("checkpoints=0", "checkpoints=0 must be at least 1"),
        ("name=", "name=: an experiment is called as its folder"),
        ("name=a/b", "name=a/b: an experiment"),
        ("name=../x", r"name=\.\./x: an experiment"),
        ("name=.hidden", r"name=\.hidden: an experiment"),
    ],
)
def test_mistakes_on_the_command_line(composed, override, sentence):
    with refused(sentence):
        composed("experiment=smoke", "launch=slurm", override)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("trainng: {epochs: 3}", "there is no key trainng; did you mean training"),
        ("training: {epochz: 3}", r"training\.epochz; did you mean training\.epochs.* .In 'experiment/mine'"),
        ("measurements: {hessian_spectrum: {stpes: 3}}", r"did you mean measurements\.hessian_spectrum\.steps"),
        ("measurements: {hesian_spectrum: {steps: 3}}", r"did you mean measurements\.hessian_spectrum"),
        ('figures: {"3": {modl: [mlp]}}', r"figures\.3\.modl; did you mean figures\.3\.model"),
        ("launch: {resources: {partion: gpu}}", r"did you mean launch\.resources\.partition"),
        ("training: {epochs: many}", "could not be converted to Integer"),
        ("training: [", "mine.yaml"),
    ],
)
def test_mistakes_in_a_file(tmp_path, lines, sentence):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / "experiment" / "mine.yaml").write_text(f"# @package _global_\nname: mine\n{lines}\n")
    with refused(sentence):
        Composer(["experiment=mine"], AXES, conf)


def test_defaults_of_measurements_are_those_of_their_classes(composed):
    config = composed("experiment=smoke", "measurements.layer_errors.sharing=reduce")
    expected = {name: find_measurement(name).settings() for name in MEASUREMENTS}
    expected["hessian_spectrum"].steps = 12  # of the experiment's file
    expected["layer_errors"].sharing = "reduce"
    assert config.measurements == expected


def test_the_command_line_has_the_last_word(composed):
    assert (
        composed("experiment=smoke", "measurements.hessian_spectrum.steps=5").measurements["hessian_spectrum"].steps
        == 5
    )


def test_keys_that_a_site_sets_need_no_plus(composed):
    launch = composed("launch=slurm", "launch.stages.sweep.mem=64GB", "launch.resources.partition=gpu").launch
    assert launch.of_stage("sweep")["mem"] == "64GB"
    assert launch.of_stage("report")["partition"] == "gpu"


def test_figures_take_axes_that_the_file_leaves_out(composed):
    assert composed("experiment=smoke", "figures.x1.model=[mlp]").figures["x1"].model == ["mlp"]


def test_the_papers_epochs_follow_from_data_and_network():
    composer = Composer(["experiment=paper"], AXES, CONF)

    def epochs(data, model):
        (config,) = composer.cells(data, model, ["10"], ["0"])
        return config.training.epochs

    assert epochs("mnist", "vgg11") == epochs("fashion_mnist", "resnet18") == 200
    assert epochs("cifar10", "vgg11") == epochs("cifar100", "resnet18") == epochs("mnist", "mlp") == 350


def test_values_may_depend_on_the_size_and_seed_of_a_cell():
    composer = Composer(["experiment=smoke", "training.batch_size=${n_per_class}"], AXES, CONF)
    configs = list(composer.cells("mnist", "mlp", ["size1", "37"], ["0", "2"]))
    assert [(c.n_per_class, c.training.batch_size, c.training.seed) for c in configs] == [
        (13, 13, 0), (13, 13, 2), (37, 37, 0), (37, 37, 2),
    ]  # fmt: skip


def test_a_seed_is_a_number():
    with refused("seed=one is not a number"):
        list(Composer(["experiment=smoke"], AXES, CONF).cells("mnist", "mlp", ["10"], ["one"]))


def test_the_values_of_an_axis():
    assert values_of("n", {"n": "10,13"}) == ["10", "13"]
    assert values_of("n", {"n": "range(0,3)"}) == ["0", "1", "2"]
    assert values_of("n", {"n": 7}) == ["7"]
    for params in ({}, {"n": ""}, {"n": None}):
        with refused("the axis n of the grid is empty"):
            values_of("n", params)


def test_arguments_for_weights_of_ones_own():
    assert own_weights(["data=mnist"]) == ["data=mnist"]
    assert own_weights(["weights=w.safetensors", "model=vgg11"]) == [
        "~experiment", "name=weights", "weights=w.safetensors", "model=vgg11",
    ]  # fmt: skip
    assert own_weights(["-m", "weights=a,b"]) == ["-m", "~experiment", "name=weights", "weights=a,b"]
    assert own_weights(["model=m:f", "data=mnist"]) == ["model=own", "model.build=m:f", "model.name=m.f", "data=mnist"]


@pytest.mark.parametrize(("script", "multirun"), [("scripts/train.py", ["-m"]), ("-m repro measure", [])])
def test_commands_refuse_a_misspelt_key_in_one_sentence(script, multirun, tmp_path):
    words = [*multirun, "experiment=smoke", f"outputs={tmp_path}", "training.epochz=3"]
    done = preloaded.run(script, *words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "error: configuration: there is no key training.epochz; did you mean"
    )
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.json"))
