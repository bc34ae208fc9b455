"""Prepared arrays on disk are those that were written, or they are prepared anew."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from loguru import logger
from test_files import finished_pid

from spikingssm.datasets import cache
from spikingssm.datasets.cache import Pieces, cached


class Made:
    """Prepares arrays, and counts how often."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        pieces = (np.full((2, 3), n, np.float32) for n in range(3))
        word = np.array("a word")
        return {"x": np.arange(10), "y": np.arange(10) % 3, "z": Pieces((6, 3), np.float32, pieces), "word": word}


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Made()


def folder():
    (found,) = cache.CACHE.glob("t-*")
    return found


def read(made):
    found = cached("t", {"a": 1}, made)
    assert set(found) == {"x", "y", "z", "word"}
    assert found["x"].tolist() == list(range(10))
    assert found["y"].tolist() == [n % 3 for n in range(10)]
    assert found["z"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert str(found["word"]) == "a word"
    return found


def test_arrays_are_prepared_once_and_mapped(made) -> None:
    for _ in range(3):
        assert all(isinstance(array, np.memmap) for array in read(made).values())
    assert made.times == 1
    listed = json.loads((folder() / "facts.json").read_text())
    assert listed["facts"] == {"a": 1}
    assert listed["arrays"]["z"]["shape"] == [6, 3]
    assert len(listed["arrays"]["z"]["sha256"]) == 64


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def edited(change):
    def edit(home):
        facts = json.loads((home / "facts.json").read_text())
        change(facts)
        (home / "facts.json").write_text(json.dumps(facts))

    return edit


DAMAGES = {
    "missing": lambda home: (home / "y.npy").unlink(),
    "empty": lambda home: (home / "y.npy").write_bytes(b""),
    "cut": lambda home: (home / "y.npy").write_bytes((home / "y.npy").read_bytes()[:-8]),
    "header-cut": lambda home: (home / "y.npy").write_bytes((home / "y.npy").read_bytes()[:90]),
    "one-bit": lambda home: flipped(home / "y.npy"),
    "one-bit-of-a-word": lambda home: flipped(home / "word.npy"),
    "other-numbers": lambda home: np.save(home / "y.npy", np.full(10, 7)),
    "other-kind": lambda home: np.save(home / "y.npy", np.arange(10) % 3 + 0.0),
    "other-shape": lambda home: np.save(home / "y.npy", np.arange(9) % 3),
    "pickle": lambda home: np.save(home / "y.npy", np.array([object()]), allow_pickle=True),
    "one-more": lambda home: np.save(home / "w.npy", np.arange(3)),
    "no-facts": lambda home: (home / "facts.json").unlink(),
    "empty-facts": lambda home: (home / "facts.json").write_text(""),
    "facts-of-an-earlier-version": lambda home: (home / "facts.json").write_text('{"a": 1}\n'),
    "facts-a-list": lambda home: (home / "facts.json").write_text("[1, 2]"),
    "facts-deep": lambda home: (home / "facts.json").write_text("[" * 100_000),
    "other-facts": edited(lambda facts: facts["facts"].update(a=2)),
    "arrays-a-word": edited(lambda facts: facts.update(arrays="x")),
    "a-digest-a-word": edited(lambda facts: facts["arrays"].update(y="x")),
    "a-path": edited(lambda facts: facts["arrays"].update({"../y": 1})),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_folder_is_prepared_anew_with_one_line(made, damage) -> None:
    read(made)
    damage(folder())
    said = []
    handler = logger.add(said.append, level="WARNING", format="{message}")
    try:
        read(made)
    finally:
        logger.remove(handler)
    assert made.times == 2
    assert len(said) == 1
    assert str(folder()) in said[0]
    assert said[0].count("\n") == 1
    read(made)
    assert made.times == 2


def test_large_arrays_are_hashed_once_in_a_process_and_again_when_they_change(made, monkeypatch) -> None:
    monkeypatch.setattr(cache, "LARGE", 0)
    read(made)
    with monkeypatch.context() as without:
        without.setattr(cache, "_entry", None)
        read(made)
    flipped(folder() / "y.npy")
    os.utime(folder() / "y.npy", ns=(1, 1))
    read(made)
    assert made.times == 2


def test_what_killed_processes_left_is_removed_and_what_lives_is_left(made) -> None:
    cache.CACHE.mkdir(parents=True)
    stale, alive = (cache.CACHE / f".t-0123456789abcdef.{pid}.partial" for pid in (finished_pid(), os.getppid()))
    other = cache.CACHE / f".other-0123.{finished_pid()}.partial"
    for partial in (stale, alive, other):
        partial.mkdir()
        (partial / "x.npy").write_bytes(bytes(1000))
    read(made)
    assert not stale.exists()
    assert alive.exists()
    assert other.exists(), "of another data set, which removes it itself"


def test_a_failed_preparation_leaves_nothing(made) -> None:
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="3 numbers came"):
        cached("t", {"a": 1}, lambda: {"x": np.arange(3), "y": Pieces((2,), np.int8, [np.zeros(3)])})
    with pytest.raises(ValueError, match="no"):
        cached("t", {"a": 1}, fail)
    assert list(cache.CACHE.iterdir()) == []


def test_a_signal_before_the_first_array_leaves_nothing(tmp_path, monkeypatch) -> None:
    mkdir = Path.mkdir

    def stopped(path, **options) -> None:
        mkdir(path, **options)
        if path.suffix == ".partial":
            raise SystemExit(143)

    monkeypatch.setattr(Path, "mkdir", stopped)
    with pytest.raises(SystemExit):
        cached("x", {}, dict, folder=tmp_path)
    assert not list(tmp_path.iterdir())
