"""What a run folder remembers of a run that did not finish, and that it is one process's."""

import json
import os
import signal
import time

import pytest
from forked import Child, wait_until
from scripts import QUICK, call, files
from small_runs import recurrent_run

from sdn.dynamics.base import Diverged
from sdn.runs import lock
from sdn.runs.lock import LOCK, locked
from sdn.runs.signals import Stopped
from spikingssm.experiments.config import load
from spikingssm.experiments.ending import ENDED, go_on, quoted, remembered, state
from spikingssm.experiments.run import run

TINY = [
    "experiment=spikingssm/digits", "+tier=smoke", "model.solver=loop", "model.d_model=8", "model.d_state=4",
    "trainer.accelerator=cpu", "threads=1",
]  # fmt: skip


def begun(folder):
    """A folder of a run that has begun."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("# python train.py\n# variant:\n")
    return folder


@pytest.mark.parametrize(
    ("error", "how", "reason"),
    [
        (Diverged("train/loss became nan"), "diverged", "train/loss became nan"),
        (ValueError("bad\nvalue"), "failed", "bad value"),
        (OSError(28, "No space left on device", "x.csv"), "failed", "x.csv: could not be written, the disk is full; "),
        (KeyError("a bug"), "failed", "KeyError: 'a bug'"),
        (Stopped(signal.SIGTERM), "stopped", "stopped by SIGTERM; there is no checkpoint yet, start again"),
    ],
)
def test_a_folder_remembers_how_its_run_ended(tmp_path, error, how, reason):
    folder = begun(tmp_path / "run")
    with pytest.raises(type(error)), remembered(folder):
        raise error
    found = state(folder)
    assert found["how"] == how
    assert found["reason"].startswith(reason)
    with remembered(folder):
        assert not (folder / ENDED).exists()
    assert state(folder) == {"how": "not finished", "reason": ""}


def test_a_run_that_never_began_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), remembered(tmp_path / "run"):
        raise ValueError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "[]", '{"how": 3, "reason": []}', '{"how": "stopped"}', "\x00"])
def test_an_unreadable_note_is_none(tmp_path, text):
    (begun(tmp_path / "run") / ENDED).write_text(text)
    assert state(tmp_path / "run") == {"how": "not finished", "reason": ""}


def test_a_run_in_another_process_is_running(tmp_path):
    folder = begun(tmp_path / "run")

    def other():
        with locked(folder):
            time.sleep(30)

    child = Child(other)
    wait_until((folder / LOCK).exists)
    assert state(folder)["how"] == "running"
    assert str(child.pid) in state(folder)["reason"]
    child.send(signal.SIGKILL)
    child.ended()
    assert state(folder)["how"] == "not finished"


@pytest.mark.parametrize("name", ["a run", "a=b", "ü", "it's", "back\\slash", "end\\", "both\\'", "plain/run-0.5"])
def test_how_to_go_on_can_be_pasted(tmp_path, name):
    """Through the shell and through Hydra's grammar."""
    import shlex

    from spikingssm.experiments.overrides import parse

    folder = tmp_path / name
    (folder / "checkpoints").mkdir(parents=True)
    assert go_on(folder) == "there is no checkpoint yet, start again with the same command"
    (folder / "checkpoints" / "last.ckpt").touch()
    (word,) = shlex.split(go_on(folder).removeprefix("go on with "))
    (override,) = parse([word])
    assert override.value() == str(folder)
    assert quoted("runs/x-0") == "runs/x-0"


def test_a_second_run_of_a_folder_is_refused(tmp_path):
    """Guards two runs that write one metrics.csv; the first is untouched."""
    folder = tmp_path / "run"
    mark = tmp_path / "held"

    def first():
        with locked(folder):
            mark.touch()
            time.sleep(30)

    child = Child(first)
    wait_until(mark.exists)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(BlockingIOError, match=r"run is in use by process \d+ since .*choose another run_dir=FOLDER"):
        run(load([*TINY, f"run_dir={folder}"]))
    assert sorted(path.name for path in folder.iterdir()) == before == [LOCK]
    child.send(signal.SIGTERM)
    assert child.ended()[0] == 143
    assert not folder.exists()


def test_a_second_training_of_an_sdn_is_refused(folder, trained, monkeypatch, capsys):
    """Of a new folder, and of one that two processes resume."""

    def hold(place, mark):
        with locked(place):
            mark.touch()
            time.sleep(30)

    for place, words in ((folder / "two", ["--save", folder / "two", *files(folder), *QUICK]), (trained, [])):
        mark = folder / f"mark-{place.name}"
        child = Child(lambda place=place, mark=mark: hold(place, mark))
        wait_until(mark.exists)
        code, err = call(monkeypatch, capsys, "train.py", *(words or ["--resume", place]))
        assert (code, err.count("\n")) == (2, 1)
        assert "is in use by process" in err
        child.send(signal.SIGKILL)
        child.ended()
        (place / LOCK).unlink()


def test_a_run_that_diverged_says_so_and_starts_again(tmp_path):
    folder = tmp_path / "runs" / "bad"
    with pytest.raises(Diverged):
        recurrent_run(folder, "optim.lr=1e30")
    assert json.loads((folder / ENDED).read_text())["how"] == "diverged"
    assert not (folder / LOCK).exists()
    recurrent_run(folder)
    assert not (folder / ENDED).exists()
    assert (folder / "summary.json").exists()


@pytest.mark.parametrize("name", [ENDED, LOCK])
def test_notes_of_a_received_folder_are_read_within_bounds(tmp_path, name):
    (tmp_path / name).write_text("[" * 100_000)
    os.utime(tmp_path / name, (0, 0))
    assert state(tmp_path) == state(tmp_path / "nothing")


@pytest.mark.parametrize("host", ["h", lock._host()], ids=["another", "this"])
def test_a_lock_of_a_strange_process_is_told_in_a_few_words(tmp_path, host):
    (tmp_path / LOCK).write_text(json.dumps({"host": host, "start": "s", "pid": 10**4000}))
    found = state(tmp_path)
    assert found["how"] == ("running" if host == "h" else "not finished")
    assert len(found["reason"]) < 100
