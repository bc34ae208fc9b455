"""`sdn notebooks FOLDER` writes all notebooks, or nothing new."""

import errno
import shutil
import sys

import pytest

from sdn import __main__ as program
from sdn.commands import notebooks


def command(monkeypatch, *words):
    """Exit code of `sdn notebooks ...` in this process."""
    monkeypatch.setattr(sys, "argv", ["sdn", "notebooks", *map(str, words)])
    try:
        program.main()
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture
def failing(monkeypatch):
    """The third copy meets a full disk."""
    real, calls = shutil.copyfile, []

    def copy(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy)
    return calls


def test_a_failure_leaves_no_new_file_or_folder(failing, tmp_path, monkeypatch):
    assert command(monkeypatch, tmp_path / "a" / "b") == 2
    assert len(failing) == 3
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_what_was_there(failing, tmp_path, monkeypatch):
    held = tmp_path / notebooks.places()[0].name
    held.write_text("mine")
    assert command(monkeypatch, tmp_path, "--force") == 2
    assert [path.name for path in tmp_path.iterdir()] == [held.name]
    assert held.read_text() == "mine"


def test_all_are_written_and_named(tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, tmp_path / "here") == 0
    expected = {path.name: path.read_bytes() for path in notebooks.places()}
    assert len(expected) >= 7
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == expected
    assert capsys.readouterr().out.split() == [str(tmp_path / "here" / name) for name in expected]


def test_a_file_in_the_place_of_the_folder_stays(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("mine")
    assert command(monkeypatch, tmp_path / "a") == 2
    assert (tmp_path / "a").read_text() == "mine"
