"""`writing`: the whole new file or the whole old one, and nothing left beside it."""

import json
import os
import subprocess
import sys

import pytest

import sdn
from sdn.runs.files import read_json, versions, write_json, writing


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def finished_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_success_replaces_the_file_in_one_go(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    for text in ("old", "new"):
        with writing(str(path)) as partial:
            assert partial != path
            assert partial.parent == path.parent
            partial.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert names(path.parent) == ["file.txt"]


class Interrupted(BaseException):
    """Like KeyboardInterrupt: no Exception."""


@pytest.mark.parametrize("error", [RuntimeError, Interrupted])
@pytest.mark.parametrize("existed", [True, False], ids=["over-a-file", "new"])
def test_failure_leaves_the_old_file(tmp_path, error, existed):
    path = tmp_path / "file.txt"
    if existed:
        path.write_text("old")

    def fail():
        with writing(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == (["file.txt"] if existed else [])
    assert not existed or path.read_text() == "old"


def test_writing_nothing_is_an_error(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), writing(path):
        pass
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("name", ["net.safetensors", "odd[1]*?.pt"])
def test_what_a_killed_process_left_is_removed(tmp_path, name):
    path = tmp_path / name
    stale, alive = (tmp_path / f".{name}.{pid}.partial" for pid in (finished_pid(), os.getppid()))
    others = tmp_path / f".other.pt.{finished_pid()}.partial"
    for partial in (stale, alive, others):
        partial.write_text("half")
    with writing(path) as partial:
        assert not stale.exists()
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert names(tmp_path) == sorted([name, alive.name, others.name])


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    code = (
        "import os, sys; from sdn.runs.files import writing\n"
        "with writing(sys.argv[1]) as p:\n    p.write_text('half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 9
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    with writing(path) as partial:
        partial.write_text("new")
    assert names(tmp_path) == ["file.txt"]


def test_json_and_versions(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, 2.5, None]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"b": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, 2.5, None]}
    assert names(tmp_path) == ["a.json"]
    assert versions()["sdn"] == sdn.__version__
    assert set(versions()) == {"sdn", "torch", "python"}
    assert all(type(v) is str for v in versions().values())


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": ' * 50_000, "1" * 5000, "\xff", '"\n"', "nul"])
def test_what_is_no_json_is_one_line(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r".") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_json_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="it has 1099511627776 bytes"):
        read_json(tmp_path / "a.json")
