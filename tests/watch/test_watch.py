"""A measurement that is watched: stopped by Ctrl-C, a time limit or a kill, and taken up again with the same bits."""

import copy
import multiprocessing
import os
import random
import re
import signal
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import repro
from repro.curvature.many_classes import class_gram
from repro.curvature.risk import RiskOperator
from repro.linalg.operator import Dense
from repro.linalg.spectrum import spectrum
from repro.watch import Checkpoint, Watch, watching
from repro.watch.watch import CTRL_C

SETTINGS = {"steps": 12, "progress": False}


class Killed(BaseException):
    """In the place of a kill: nothing catches it."""


class Dying(Checkpoint):
    """Writes at random products, and is killed at one."""

    left = 10**9
    moments = random.Random()

    def keep(self, V, products):
        self.seconds = 0 if self.moments.random() < 0.2 else 1e9
        super().keep(V, products)
        self.wait()
        Dying.left -= V.shape[1]
        if Dying.left <= 0:
            raise Killed

    def flush(self):
        if Dying.left > 0:  # a killed process writes nothing at its end
            super().flush()


@pytest.fixture(scope="module")
def problem():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).eval()
        return model, (torch.randn(18, 4), torch.arange(18) % 3)


def same(found, expected):
    assert found.arrays.keys() == expected.arrays.keys()
    assert all(found.arrays[name].tobytes() == array.tobytes() for name, array in expected.arrays.items())


MEASUREMENTS = {
    "hessian_spectrum": {"steps": 12, "probes": 2, "spectra": ["train_hessian", "train_gauss_newton"]},
    "gauss_newton_knockouts": {"steps": 12},
    "alignment": {"exact_limit": 0, "max_products": 9},
    "alignment_dynamics": {"max_products": 9},
    "dynamics": {"steps": 8},
    "density_probes": {"steps": 8, "probes": 2, "memory_bytes": 6500.0},
}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_killed_again_and_again_it_ends_with_the_same_bits(problem, name, tmp_path, monkeypatch):
    model, data = problem
    network = repro.Network(model, data, checkpoints={0: model, 3: model})
    settings = MEASUREMENTS[name] | {"progress": False}
    before = RiskOperator.counted
    expected = repro.measure(name, network, **settings)
    products = RiskOperator.counted - before
    seed = int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(10**6))
    print(f"KILL_SEED={seed} draws these moments again")
    moments = Dying.moments = random.Random(seed)
    monkeypatch.setattr("repro.api.Checkpoint", Dying)
    before, kills = RiskOperator.counted, 0
    found = None
    while found is None:
        Dying.left = moments.randint(1, 2 * products // 3)
        try:
            found = repro.measure(name, network, checkpoint=tmp_path / "kept", **settings)
        except Killed:
            kills += 1
    same(found, expected)
    assert kills
    assert not (tmp_path / "kept").exists()
    print(f"{kills} kills; {products} products undisturbed, {RiskOperator.counted - before} so")


def test_another_network_does_not_take_up_a_checkpoint(problem, tmp_path):
    model, data = problem
    stop = Counter(stop_at=5)
    first = repro.spectrum(model, data, steps=12, progress=stop, checkpoint=tmp_path)
    assert not first.complete
    before = sorted(tmp_path.iterdir())
    other = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).eval()
    for model_, data_, settings in (
        (other, data, SETTINGS),
        (model, (data[0] + 1, data[1]), SETTINGS),
        (model, data, SETTINGS | {"steps": 13}),
    ):
        with pytest.raises(ValueError, match="another measurement"):
            repro.spectrum(model_, data_, checkpoint=tmp_path, **settings)
    assert sorted(tmp_path.iterdir()) == before
    same(repro.spectrum(model, data, checkpoint=tmp_path, **SETTINGS), repro.spectrum(model, data, **SETTINGS))


def test_the_products_of_another_matrix_are_refused(tmp_path):
    """Where identities agree and the matrix does not: an option that no identity knows of."""
    A = torch.randn(9, 9, generator=torch.Generator().manual_seed(0))
    identity = "0123456789abcdef"
    for matrix in (A + A.T, A + A.T + torch.eye(9)):
        watch = Watch(checkpoint=Checkpoint(tmp_path, identity))
        with watching(watch):
            if matrix[0, 0] == 2 * A[0, 0]:
                spectrum(watch.over(Dense(matrix)), k=2, steps=5)
            else:
                with pytest.raises(ValueError, match="of another matrix than Dense"):
                    spectrum(watch.over(Dense(matrix)), k=2, steps=5)


class Counter:
    """A progress function that presses Ctrl-C."""

    def __init__(self, stop_at=None):
        self.told, self.stop_at = [], stop_at

    def __call__(self, now):
        self.told.append(now)
        if now.products == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_gives_back_what_there_is(problem, tmp_path, capsys):
    model, data = problem
    whole = repro.spectrum(model, data, **SETTINGS)
    stop = Counter(stop_at=41)
    before = signal.getsignal(signal.SIGINT)
    found = repro.spectrum(model, data, steps=12, progress=stop)
    assert signal.getsignal(signal.SIGINT) is before
    assert "Ctrl-C once more" in capsys.readouterr().err
    assert not found.complete
    assert whole.complete
    assert found.spectra == ["train_hessian", "train_gauss_newton"]  # the first is finished, the second under way
    planned = re.search(r"INCOMPLETE: Ctrl-C, after 41 of about (\d+) products", repr(found))
    assert int(planned[1]) == 22 + 2 * 29  # those of the first spectrum, and two as planned
    for part in ("nodes", "eigenvalues", "residuals", "converged"):
        name = f"train_hessian_{part}"
        np.testing.assert_array_equal(found.arrays[name], whole.arrays[name])
    found.save(tmp_path / "found.npz")
    read = repro.load(tmp_path / "found.npz")
    assert (read.complete, repr(read)) == (False, repr(found))
    assert list(read.frame()["spectrum"].unique()) == found.spectra
    assert len(read.plot().axes) == 2
    assert read.density("train_gauss_newton").density.min() >= 0


FINISHED = {  # what there is of a measurement that is stopped in its last product but one
    "dynamics": ("epochs", [0]),
    "alignment_dynamics": ("epochs", [0]),
    "kronecker_factors": ("layers", ["0"]),
}


@pytest.mark.parametrize("name", FINISHED)
def test_the_epochs_and_layers_that_were_finished_come_back(problem, name):
    model, data = problem
    network = repro.Network(model, data, checkpoints={0: copy.deepcopy(model), 3: model})
    settings = {"kronecker_factors": {"steps": 8, "exact_limit": 1, "outliers": 2}, **MEASUREMENTS}[name]
    counter = Counter()
    whole = repro.measure(name, network, progress=counter, **settings)
    last = counter.told[-1].products
    assert repro.measure(name, network, progress=Counter(stop_at=last), **settings).complete
    found = repro.measure(name, network, progress=Counter(stop_at=last - 1), **settings)
    assert not found.complete
    along, values = FINISHED[name]
    assert found.arrays[along].tolist() == values
    assert len(whole.arrays[along]) == 2
    for key, value in found.arrays.items():
        of_one = value.ndim == 0 or key.startswith("layer0_")
        np.testing.assert_array_equal(value, whole.arrays[key] if of_one else whole.arrays[key][:1])
    with pytest.raises(KeyboardInterrupt):
        repro.measure(name, network, progress=Counter(stop_at=1), **settings)


def test_of_two_ways_the_first_comes_back(problem):
    counter = Counter()
    repro.measure("density_probes", repro.Network(*problem), progress=counter, **MEASUREMENTS["density_probes"])
    stop = Counter(stop_at=counter.told[-1].products - 1)
    found = repro.measure("density_probes", repro.Network(*problem), progress=stop, **MEASUREMENTS["density_probes"])
    assert (found.complete, found.spectra) == (False, ["deflated"])


class Looking(Watch):
    """Is asked to stop the `left`-th time that it is looked at."""

    left = 10**9

    def look(self, seconds=0.0):
        Looking.left -= 1
        if Looking.left == 0:
            self.stop(CTRL_C)
        super().look(seconds)


@pytest.mark.parametrize("name", ["class_means", "exact_spectrum", "layer_features", "layer_errors", "weights"])
def test_work_without_products_stops_between_batches_and_keeps_what_is_finished(problem, name, tmp_path, monkeypatch):
    model, (x, y) = problem
    checkpoints = {0: copy.deepcopy(model), 3: model}
    network = repro.Network(model, (x, y), (x, y), checkpoints=checkpoints, weight_decay=0.1, batch_size=9)
    whole = repro.measure(name, network, progress=False)
    monkeypatch.setattr("repro.api.Watch", Looking)

    def measured(left=10**9):
        Looking.left = left
        return repro.measure(name, network, progress=False, checkpoint=tmp_path / "kept")

    same(measured(), whole)
    looks = 10**9 - Looking.left
    with pytest.raises(KeyboardInterrupt):  # there is nothing yet
        measured(1)
    found = measured(looks)
    assert not found.complete
    assert found.arrays
    for key, value in found.arrays.items():
        expected = whole.arrays[key]
        if key == "epochs":  # the last network's comes first
            assert set(value) <= set(expected)
        else:
            np.testing.assert_array_equal(value, expected[: len(value)] if value.ndim else expected)
    same(measured(), whole)
    if name in ("class_means", "exact_spectrum"):
        assert 10**9 - Looking.left <= looks / 2  # the parts that were finished were not done again


def ending(matrix, watch, made):
    """An operator that asks its watch to stop in its product number `made`, which is the last then."""

    class Ending(Dense):
        def matmat(self, V):
            if watch.products == made - 1:
                watch.stop("enough")
            return super().matmat(V)

    return Ending(matrix)


@pytest.mark.parametrize("made", range(1, 26))
def test_an_incomplete_spectrum_is_honest(made):
    """Residuals are those of the pairs, and what counts as converged is an eigenvalue, wherever it was stopped."""
    generator = torch.Generator().manual_seed(3)
    Q = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64)).Q
    values = torch.cat([torch.tensor([9.0, -7.0, 5.0], dtype=torch.float64), torch.linspace(-1, 1, 37).double()])
    A = Q @ values.diag() @ Q.T
    watch = Watch()

    found = spectrum(watch.over(ending((A + A.T) / 2, watch, made)), k=3, steps=15, probes=2)
    assert watch.stopped
    assert watch.products == made
    V, found_values = found.vectors, torch.from_numpy(found.eigenvalues)
    true = torch.linalg.vector_norm(A @ V - V * found_values, dim=0).numpy()
    assert (true <= found.residuals + 1e-10).all()
    for value, converged in zip(found.eigenvalues, found.converged):
        assert not converged or min(abs(values - value)) <= 1e-3 * abs(value)
    assert found.nodes.shape == (1, min(made, 15))
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-12)
    if made < 15:
        assert not found.deflated.any()


@pytest.mark.parametrize("made", [1, 4, 9, 17])
def test_a_stopped_search_with_restarts_is_honest(made):
    values = torch.cat([torch.tensor([9.0, -7.0, 5.0]), torch.linspace(-1, 1, 37)]).double()
    watch = Watch()

    found = spectrum(watch.over(ending(values.diag(), watch, made)), k=3, steps=30, memory_budget=6 * 40 * 8)
    errors = values[:, None] * found.vectors - found.vectors * torch.from_numpy(found.eigenvalues)
    true = torch.linalg.vector_norm(errors, dim=0).numpy()
    assert (true <= found.residuals + 1e-10).all()
    assert len(found.eigenvalues) == min(made, 3)
    assert found.deflated.all() == (made == 17)  # when the pairs had been confirmed
    assert found.nodes.shape == (0, 30)  # no probe was finished


def test_a_second_ctrl_c_leaves_at_once(problem):
    model, data = problem

    def insist(now):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        repro.spectrum(model, data, steps=12, progress=insist)


def test_ctrl_c_before_the_first_product_leaves_at_once(problem, monkeypatch):
    model, data = problem
    network = repro.Network(model, data)
    monkeypatch.setattr(type(network), "batches", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        repro.measure("layer_features", network)


def test_a_time_limit_gives_back_what_there_is(problem, monkeypatch):
    model, data = problem
    clock = iter(range(10**6))
    monkeypatch.setattr("repro.watch.watch.time.monotonic", lambda: next(clock))
    found = repro.spectrum(model, data, time_limit=60, **SETTINGS)
    assert not found.complete
    assert "time_limit of 60 s" in found.provenance["incomplete"]
    assert found.spectra
    with pytest.raises(TimeoutError, match="before anything was measured"):
        repro.spectrum(model, data, time_limit=1e-9, **SETTINGS)


def test_in_another_thread_it_works_as_well(problem):
    model, data = problem
    found = []
    thread = threading.Thread(target=lambda: found.append(repro.spectrum(model, data, **SETTINGS)))
    thread.start()
    thread.join()
    same(found[0], repro.spectrum(model, data, **SETTINGS))


def test_progress_is_told_after_each_product(problem, caplog):
    model, data = problem
    caplog.set_level("INFO")
    counter = Counter()
    repro.spectrum(model, data, steps=16, progress=counter)
    told = counter.told
    assert [now.products for now in told] == list(range(1, len(told) + 1))
    assert {now.parts for now in told} == {3}
    assert [now.part for now in told] == sorted(now.part for now in told)
    assert max(now.converged for now in told) == max(now.wanted for now in told) == 3
    assert told[0].seconds_left is None
    assert told[1].seconds_left > told[-1].seconds_left
    assert told[-1].products <= told[-1].planned <= 1.2 * told[-1].products
    assert re.search(r"MB basis, 3 spectra, \d+ products of \S+ s: about \S+ s", caplog.text)


def test_the_bar_says_how_far_it_is(problem):
    from rich.console import Console

    from repro.watch.bar import Bar
    from repro.watch.watch import Progress

    console = Console(force_terminal=True, width=200, record=True)
    with Bar(console) as bar:
        bar(Progress(3, 87, 1, 3, 0, 0, 1.0, None, ""))  # too early
        assert not console.export_text(clear=False)
        bar(Progress(57, 87, 2, 3, 7, 10, 60.0, 720.0, "5.7 GB basis: about 30 min"))
    text = console.export_text()
    assert "5.7 GB basis: about 30 min" in text
    quiet = Console(force_terminal=False, record=True)
    with Bar(quiet) as bar:
        bar(Progress(57, 87, 2, 3, 7, 10, 60.0, 720.0, "5.7 GB basis"))
    assert not quiet.export_text()


def test_kill_9_at_random_moments(problem, tmp_path, monkeypatch):
    """Processes of their own, forked so that they need not import anything."""
    model, data = problem
    seed = int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(10**6))
    print(f"KILL_SEED={seed} draws these moments again")
    moments, context = random.Random(seed), multiprocessing.get_context("fork")
    monkeypatch.setattr("repro.api.Checkpoint", partial(Checkpoint, seconds=0))

    def attempt(connection):
        def progress(now):
            connection.send(now.products)

        found = repro.spectrum(model, data, steps=12, progress=progress, checkpoint=tmp_path / "kept")
        found.save(tmp_path / "found.npz")

    expected = repro.spectrum(model, data, **SETTINGS)
    for _ in range(8):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=attempt, args=(sender,))
        child.start()
        sender.close()  # so that a child that has died is not waited for
        moment = moments.randint(1, 50)  # of 57 products, those taken from the checkpoint among them
        while receiver.recv() < moment:
            pass
        time.sleep(moments.uniform(0, 0.03))
        child.kill()
        child.join()
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=attempt, args=(sender,))
    child.start()
    child.join()
    assert child.exitcode == 0
    same(repro.load(tmp_path / "found.npz"), expected)
    assert not (tmp_path / "kept").exists()


def test_killed_after_its_last_part_it_makes_no_product(problem, tmp_path, monkeypatch):
    """Everything is measured, and the checkpoint still there: the progress is told all the same."""
    model, data = problem
    with monkeypatch.context() as killed:
        killed.setattr(Checkpoint, "remove", lambda checkpoint: None)
        expected = repro.spectrum(model, data, checkpoint=tmp_path / "kept", **SETTINGS)
    before, counter = RiskOperator.counted, Counter()
    same(repro.spectrum(model, data, steps=12, progress=counter, checkpoint=tmp_path / "kept"), expected)
    assert RiskOperator.counted == before
    assert [now.part for now in counter.told] == [1, 2, 3]
    assert not (tmp_path / "kept").exists()


def test_what_was_made_is_not_made_again(problem, tmp_path):
    model, data = problem
    before = RiskOperator.counted
    expected = repro.spectrum(model, data, **SETTINGS)
    products, before = RiskOperator.counted - before, RiskOperator.counted
    for moment in (5, 30, 50):  # in the first spectrum, and in the second
        assert not repro.spectrum(
            model, data, steps=12, progress=Counter(moment), checkpoint=tmp_path / "kept"
        ).complete
    found = repro.spectrum(model, data, checkpoint=tmp_path / "kept", **SETTINGS)
    same(found, expected)
    assert RiskOperator.counted - before == products + 3  # each attempt makes one to prove the checkpoint


@pytest.mark.parametrize("classes", [None, [2, 0]], ids=["all classes", "two classes"])
def test_an_alignment_takes_products_and_means_from_its_checkpoint(problem, tmp_path, monkeypatch, classes):
    network, made = repro.Network(*problem), []

    def counted(*args, **kwargs):
        made.append(kwargs["companion"])
        return class_gram(*args, **kwargs)

    def measured(progress=False):
        settings = MEASUREMENTS["alignment"] | {"classes": classes, "progress": progress}
        return repro.measure("alignment", network, checkpoint=tmp_path / "kept", **settings)

    before = RiskOperator.counted
    expected = measured()
    products, before = RiskOperator.counted - before, RiskOperator.counted
    monkeypatch.setattr("repro.measurements.alignment.class_gram", counted)
    for moment in (2, 7, products - 2):  # of Hess, and of G
        assert not measured(Counter(moment)).complete
    same(measured(), expected)
    assert made == [False, True]
    assert RiskOperator.counted - before == products + 3  # each attempt makes one to prove the checkpoint
