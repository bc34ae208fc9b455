"""The comparison of two commits: pairs in turns, the median ratio, and this tree beside itself."""

import subprocess
import sys
from pathlib import Path

from benchmarks.commits import _summary, cases

ROOT = Path(__file__).parents[2]


def test_the_ratio_is_the_median_over_pairs():
    found = _summary([(1.0, 1.1), (2.0, 2.0), (4.0, 3.6), (1.0, 5.0), (1.0, 1.0)])
    assert found["ratio"] == 1.0
    assert (found["before"], found["now"]) == (1.0, 2.0)
    assert found["lower"] < 1.0 < found["upper"]


def test_every_case_has_its_steps_or_passes():
    names = list(cases())
    assert len(names) == len(set(names)) > 20
    assert all(name.endswith(("training step", "inference", "steps")) for name in names)


def test_a_commit_that_is_not_there_is_refused():
    command = [sys.executable, "-m", "benchmarks.commits", "no-such-commit"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "no-such-commit" in done.stderr
    assert "Traceback" not in done.stderr
