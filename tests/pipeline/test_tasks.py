"""A task is done once, whoever asks, and can be pickled for a queue."""

import pickle
from dataclasses import dataclass
from typing import ClassVar

import pytest

from repro.pipeline.tasks import Task, finished, run, unfinished


@dataclass(frozen=True, kw_only=True)
class Note(Task):
    """Leaves a file that says on which device it was written, and how often."""

    stage: ClassVar[str] = "sweep"
    text: str

    @property
    def name(self):
        return self.text

    @property
    def path(self):
        return self.root / self.text

    def finished(self):
        return self.path.exists()

    def run(self, device):
        before = self.path.read_text() if self.path.exists() else ""
        self.path.write_text(f"{before}{device};")


def test_what_is_finished_is_not_done_again_unless_forced(tmp_path):
    task = Note(root=tmp_path, text="a")
    assert not finished(task)
    run(task)
    run(task)
    assert task.path.read_text() == "cpu;"
    run(Note(root=tmp_path, text="a", force=True))
    assert task.path.read_text() == "cpu;cpu;"


def test_unfinished_are_those_that_would_do_something(tmp_path):
    done, forced, new = (Note(root=tmp_path, text=text, force=text == "b") for text in "abc")
    for task in (done, forced):
        task.path.touch()
    assert unfinished([done, forced, new]) == [forced, new]


def test_the_device_is_found_when_the_task_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.pipeline.tasks.find_device", lambda asked: f"{asked} resolved")
    run(Note(root=tmp_path, text="a"))
    assert (tmp_path / "a").read_text() == "cpu resolved;"


def test_a_task_can_be_pickled(tmp_path):
    task = Note(root=tmp_path, text="a")
    assert pickle.loads(pickle.dumps(task)) == task


def test_a_stage_has_to_say_what_its_tasks_do(tmp_path):
    with pytest.raises(TypeError, match="abstract"):
        Task(root=tmp_path)
