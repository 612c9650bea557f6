"""kill -9 of driver and worker at random moments of every stage: nothing half-written, the same results in the end."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from safetensors import safe_open

from repro.storage.results import load_result
from repro.storage.runs import read_run, read_table
from repro.storage.sealed import read_json

ROOT = Path(__file__).resolve().parent.parent
LINE = [
    sys.executable, "scripts/reproduce.py", "all", "experiment=smoke", "launch.workers=1",
    "training.epochs=20", "checkpoint_seconds=0", "measurements.hessian_spectrum.steps=30",
]  # fmt: skip
WORK = {  # the files whose change says that a stage has begun its work
    "sweep": ("unfinished/*.safetensors", "runs/**/*.json"),
    "retrain": ("selected/**/*.safetensors",),
    "measure": ("logs/measure/*.log",),
    "figures": ("figures/*",),
}
RESULTS = {"sweep": "runs", "retrain": "selected", "measure": "results", "figures": "figures"}
KILLS = ({"sweep": 3, "retrain": 2, "measure": 3, "figures": 2}, {"sweep": 2, "retrain": 3, "measure": 2, "figures": 3})


def start(outputs):
    """Everything, from training to figures, in a session of its own."""
    return subprocess.Popen(
        [*LINE, f"outputs={outputs}"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(driver):
    _, said = driver.communicate()
    assert driver.returncode == 0, said


def stamps(root, stage):
    found = {}
    for path in (path for pattern in WORK[stage] for path in root.glob(pattern)):
        try:
            found[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # since it was listed
            continue
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """An experiment that nothing happened to, and the seconds from the begin of each stage's work to its end."""
    outputs, begun = tmp_path_factory.mktemp("undisturbed"), {}
    root, driver = outputs / "smoke", start(outputs)
    while driver.poll() is None:
        begun |= {stage: time.time() for stage in WORK if stage not in begun and stamps(root, stage)}
        time.sleep(0.01)
    finish(driver)
    ends = {stage: max(path.stat().st_mtime for path in (root / RESULTS[stage]).rglob("*")) for stage in WORK}
    return root, {stage: ends[stage] - begun[stage] for stage in WORK}


def check_whole(root):
    """Every file under a final name can be read to its end."""
    for path in root.glob("runs/**/lr*.json"):
        read_run(path)
    for path in root.glob("selected/**/run.json"):
        read_json(path)
    for path in root.glob("**/*.safetensors"):
        with safe_open(path, framework="np") as file:
            assert all(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118 (not a dict)
    for path in root.glob("results/**/*.npz"):
        load_result(path, None)
    for path in root.glob("figures/[!.]*"):
        content = path.read_bytes()
        if path.suffix == ".csv":
            pd.read_csv(path)
        elif path.suffix == ".json":
            json.loads(content)
        else:
            assert b"%%EOF" in content[-8:] if path.suffix == ".pdf" else b"IEND" in content[-12:], path


def found(root):
    """All results, without what differs between two computations of them: seconds and dates."""
    results = {}
    for path in sorted(root.glob("runs/**/lr*.json")) + sorted(root.glob("selected/**/run.json")):
        kept = read_json(path)
        del kept["provenance"]
        results[str(path.relative_to(root))] = kept  # of a selected run with the digests of its checkpoints
    for path in root.glob("results/**/*.npz"):  # exactly the same numbers, as a worker computes with one thread
        arrays = load_result(path, None).arrays
        results[str(path.relative_to(root))] = {name: array.tobytes() for name, array in arrays.items()}
    for path in root.glob("figures/[!.]*"):  # a PDF holds its date
        results[str(path.relative_to(root))] = path.read_text() if path.suffix == ".csv" else "there"
    if (root / "selected.csv").exists():
        results["selected.csv"] = read_table(root / "selected.csv").drop(columns="seconds").to_csv()
    return results


def kill(stage, outputs, seconds):
    """Kill the pipeline that long after `stage` has begun its work; the stage it was at, None if it was over."""
    root = outputs / "smoke"
    before, driver = {at: stamps(root, at) for at in WORK}, start(outputs)
    while driver.poll() is None and stamps(root, stage) == before[stage]:
        time.sleep(0.01)
    time.sleep(seconds)
    alive = driver.poll() is None
    if alive:
        os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    return max((at for at in WORK if stamps(root, at) != before[at]), key=list(WORK).index) if alive else None


def disturb(outputs, kills, seconds, expected, moments):
    """Kill a pipeline so many times in each stage; the stages it was at."""
    hits, root = [], outputs / "smoke"
    for stage, wanted in kills.items():
        longest = seconds[stage] / (wanted if stage in ("sweep", "retrain") else 1)  # these go on where they were
        for _ in range(10 * wanted):
            if hits.count(stage) >= wanted:
                break
            made = [root / name for name in expected if name.startswith(f"{RESULTS[stage]}/")]
            if all(path.exists() for path in made):  # a late kill: look at it, and once more
                assert found(root).items() <= expected.items()
                shutil.rmtree(root / RESULTS[stage])
            moment = moments.uniform(0, longest)
            hit = kill(stage, outputs, moment)
            print(f"{outputs.name}: {hit or 'over'}, {moment:.3f} s after {stage} had begun its work")
            check_whole(root)
            hits += [hit] if hit else []
    finish(start(outputs))
    check_whole(root)
    return hits


@pytest.mark.slow
def test_twenty_kills_at_random_moments_then_resume(undisturbed, tmp_path):
    root, seconds = undisturbed
    expected, seed = found(root), int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(10**6))
    print(f"KILL_SEED={seed} draws these moments again; seconds at work when undisturbed: {seconds}")
    with ThreadPoolExecutor() as pool:  # two pipelines side by side, of one worker each
        jobs = {
            outputs: pool.submit(disturb, outputs, kills, seconds, expected, random.Random(f"{seed} {outputs.name}"))
            for outputs, kills in zip((tmp_path / "one", tmp_path / "other"), KILLS)
        }
    hits = [hit for job in jobs.values() for hit in job.result()]
    assert len(hits) >= 20
    assert all(hits.count(stage) >= 5 for stage in WORK)
    for outputs in jobs:
        assert found(outputs / "smoke") == expected
        assert not list(outputs.rglob("*.tmp")), "what a killed process left was not removed"
        assert not list(outputs.glob("smoke/unfinished/*"))
