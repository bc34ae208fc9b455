"""Six kills of `make kill`, and that its checks see what is wrong."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from kill.check import damaged, difference, finished, rubbish, stopped
from kill.jobs import JOBS
from kill.moments import SIGNALS, Kill, plan
from scripts import ROOT

from sdn.runs.files import write_json

KILLS = 6


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """In a process of its own, since copies are made of it: this one may have threads."""
    path = tmp_path_factory.mktemp("kill") / "table.json"
    command = [sys.executable, "-W", "ignore", "-m", "kill", "--kills", str(KILLS), "--processes", "0", "--seed", "8"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, "--json", str(path)], env=env, text=True, capture_output=True)
    assert path.is_file(), done.stderr
    found = json.loads(path.read_text())
    assert done.returncode == (found["right"] < KILLS)
    return found["table"]


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_work_done_again_is_that_which_was_never_stopped(table, number):
    assert table[number]["wrong"] == [], table[number]


def test_the_same_seed_kills_at_the_same_moments_and_every_job_meets_every_signal():
    kills = plan(0, 100, 12)
    assert kills == plan(0, 100, 12) != plan(1, 100, 12)
    met = Counter((kill.job, kill.signal) for kill in kills)
    assert set(met) == {(job, number) for job in JOBS for number in SIGNALS}
    assert min(met.values()) >= 8
    assert sum(kill.process for kill in kills) == 12
    assert 30 < sum(kill.file for kill in kills) < 60


@pytest.mark.parametrize(
    ("one", "other", "at"),
    [
        ({"a": [torch.tensor([0.0])]}, {"a": [torch.tensor([-0.0])]}, "a.0: other numbers"),
        ({"a": torch.ones(2)}, {"a": torch.ones(2, dtype=torch.float64)}, "a: other numbers"),
        ({"a": np.ones(2)}, {"a": np.ones((2, 1))}, "a: other numbers"),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, "a: only one has"),
        ({"a": (1, 2)}, {"a": (1,)}, "a: 2 and 1 entries"),
        ({"a": 0.1}, {"a": 0.1 + 2**-56}, "a: 0.1 and"),
        ({"a": 1}, {"a": 1.0}, "a: int and float"),
    ],
)
def test_any_difference_is_found_and_named(one, other, at):
    assert difference(one, other).startswith(at)
    assert difference(one, one) is None


def test_what_is_cut_or_left_over_is_found(tmp_path):
    write_json(tmp_path / "whole.json", {})
    assert damaged(tmp_path) == rubbish(tmp_path) == []
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n3")
    (tmp_path / "cut.json").write_text('{"a": ')
    (tmp_path / "last.ckpt").write_bytes(b"PK")
    (tmp_path / ".last.ckpt.7.partial").touch()
    (tmp_path / ".lock").touch()
    assert [line.split(" ")[0] for line in damaged(tmp_path)] == ["cut.json", "last.ckpt", "metrics.csv"]
    assert rubbish(tmp_path) == [".last.ckpt.7.partial is left", ".lock is left"]
    left = finished(JOBS["cache"], tmp_path, 0, "", {}, {"whole.json"})
    assert ".lock is left over" in left


def test_a_wrong_end_is_found(tmp_path):
    def wrong(job, code, err, number=signal.SIGTERM):
        return stopped(Kill(job, number, 0.5, False, False), JOBS[job], tmp_path, code, err)

    right = "a line\nstopped by SIGTERM; nothing half written is left behind, start again with the same command\n"
    assert wrong("cache", 143, right) == []
    assert wrong("cache", 1, right) == ["exit code 1, not 143"]
    assert len(wrong("cache", 143, f"Traceback (most recent call last)\n{right}")) == 1
    assert len(wrong("cache", 130, right, signal.SIGINT)) == 1
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    torch.save({}, tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert "not stopped by SIGTERM ...; go on with resume=run" in wrong("network", 143, right)[-1]
