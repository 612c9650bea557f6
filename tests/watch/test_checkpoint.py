"""Products on disk: what is taken up is what was kept, of the same vectors, of the same measurement, within bounds."""

import logging

import pytest
import torch

from repro.watch import checkpoint
from repro.watch.checkpoint import Checkpoint, ForeignCheckpointError

ONE, OTHER = "0123456789abcdef", "fedcba9876543210"


def vectors(count, size=5, seed=0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)).T  # [P, K]


def kept(folder, V, identity=ONE):
    """A checkpoint whose first part has the products -V, written each by each."""
    made = Checkpoint(folder, identity, seconds=0)
    made.part(1)
    for v in V.T:
        made.keep(v[:, None], -v[:, None])
    made.wait()
    return made


def test_products_are_taken_in_their_order_and_then_made(tmp_path):
    V = vectors(5)
    kept(tmp_path, V[:, :4])
    again = Checkpoint(tmp_path, ONE, seconds=0)
    assert again.part(1) is None
    assert torch.equal(again.take(V[:, :1]), -V[:, :1])
    assert torch.equal(again.take(V[:, 1:4]), -V[:, 1:4])  # three at once
    assert again.take(V[:, 4:]) is None
    again.keep(V[:, 4:], -V[:, 4:])
    again.wait()
    third = Checkpoint(tmp_path, ONE)
    third.part(1)
    assert torch.equal(third.take(V), -V)
    assert (again.taken, third.taken) == (4, 5)


def test_a_finished_part_takes_the_place_of_its_products(tmp_path):
    V = vectors(3)
    made = kept(tmp_path, V)
    made.finish({"found": V.numpy()})
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    again = Checkpoint(tmp_path, ONE)
    assert (again.part(1)["found"] == V.numpy()).all()
    assert again.taken == 3
    assert again.part(2) is None
    assert again.take(V) is None


def test_a_product_is_taken_for_no_other_vector(tmp_path, caplog):
    V, W = vectors(4), vectors(4, seed=1)
    kept(tmp_path, V)
    again = Checkpoint(tmp_path, ONE)
    again.part(1)
    assert torch.equal(again.take(V[:, :2]), -V[:, :2])
    assert again.take(W[:, :1]) is None
    assert "product 2" in caplog.text
    again.keep(W[:, :1], W[:, :1])
    again.flush()
    again.wait()
    third = Checkpoint(tmp_path, ONE)
    third.part(1)
    assert torch.equal(third.take(torch.cat([V[:, :2], W[:, :1]], dim=1))[:, 2], W[:, 0])
    assert third.take(V[:, 3:]) is None


def test_what_a_signal_interrupts_is_written_under_its_own_number(tmp_path, monkeypatch, caplog):
    """A handler may raise while a product is being kept, as submitit's does at the end of a job's time."""
    V, seen = vectors(4), []
    made = Checkpoint(tmp_path, ONE)
    made.part(1)
    made.keep(V[:, :1], -V[:, :1])

    def interrupted(vector):
        seen.append(vector)
        if len(seen) == 2:
            raise SystemExit
        return checksum(vector)

    checksum = checkpoint._checksum
    monkeypatch.setattr(checkpoint, "_checksum", interrupted)
    with pytest.raises(SystemExit):
        made.keep(V[:, 1:], -V[:, 1:])
    made.flush()
    made.wait()
    again = Checkpoint(tmp_path, ONE)
    again.part(1)
    assert torch.equal(again.take(V[:, :1]), -V[:, :1])
    assert again.take(V[:, 1:2]) is None
    assert not caplog.text


def test_another_measurement_is_refused_and_its_files_stay(tmp_path):
    kept(tmp_path, vectors(2))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ForeignCheckpointError, match="other weights, data, settings"):
        Checkpoint(tmp_path, OTHER)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_is_no_folder(tmp_path):
    path = tmp_path / "mine.npz"
    path.write_text("x")
    with pytest.raises(NotADirectoryError, match=r"mine\.npz is a file: name a folder"):
        Checkpoint(path, ONE)


def test_removing_it_leaves_what_is_not_its_own(tmp_path):
    made = kept(tmp_path / "alone", vectors(2))
    made.remove()
    assert not (tmp_path / "alone").exists()
    (tmp_path / "mine.txt").write_text("mine")
    kept(tmp_path, vectors(2)).remove()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_damage_costs_the_products_in_the_file_and_no_others(tmp_path, caplog):
    V = vectors(3)
    kept(tmp_path, V)
    damaged = sorted(tmp_path.iterdir())[1]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    again = Checkpoint(tmp_path, ONE, seconds=1e9)
    again.part(1)
    assert torch.equal(again.take(V[:, :1]), -V[:, :1])
    assert again.take(V[:, 1:2]) is None
    again.keep(V[:, 1:2], -V[:, 1:2])
    assert torch.equal(again.take(V[:, 2:]), -V[:, 2:])
    again.wait()
    assert "damaged" in caplog.text
    third = Checkpoint(tmp_path, ONE)
    third.part(1)
    assert torch.equal(third.take(V), -V)
    third.remove()
    assert not tmp_path.exists()


def test_what_is_slow_to_write_or_large_is_not_kept(tmp_path, monkeypatch, caplog):
    V = vectors(6)
    monkeypatch.setattr(checkpoint, "MOST_BYTES", 2 * 4 * 5)  # two products
    caplog.set_level(logging.INFO)
    kept(tmp_path / "room", V)
    assert len(list((tmp_path / "room").iterdir())) == 2
    assert "are not kept from number 3" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr(checkpoint, "GRACE", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 0.0)
    kept(tmp_path / "time", V).flush()
    assert not list((tmp_path / "time").iterdir())


def test_a_part_of_a_few_bytes_says_nothing_of_how_fast_the_disk_is(tmp_path):
    """Class means come to a few numbers, and took no writing; the products of the spectrum after them are kept."""
    V = vectors(2, size=500_000)
    made = Checkpoint(tmp_path, ONE, seconds=1e9)
    made.part(1)
    made.keep(V[:, :1], -V[:, :1])
    made.finish({"found": V[:1].numpy()})
    made.part(2)
    made.seconds = 0
    made.keep(V[:, 1:], -V[:, 1:])
    made.wait()
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".part", ".products"]


def test_a_full_disk_costs_the_checkpoint_and_not_the_measurement(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_result", full)
    kept(tmp_path, vectors(4)).finish({})
    assert caplog.text.count("cannot be taken up from here") == 1


def test_seconds_of_earlier_attempts_add_up(tmp_path):
    V = vectors(2)
    kept(tmp_path, V)
    again = Checkpoint(tmp_path, ONE)
    again.part(1)
    again.take(V)
    assert 0 < again.seconds_before < 5
