"""Compiled kernels on disk: a damaged file costs a compilation, and nothing else; kernels where numba is switched off.

A kernel of one line stands for all of them: its files are those of the decorator that they share.
"""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from forked import Child, wait_until
from numba.core import config
from numba.core.caching import NullCache
from scripts import ROOT

from sdn.ops.common import compiled
from sdn.ops.common.compiled import jit


def twice(x):
    return 2 * x


def thrice(x):
    return 3 * x


def damaged(damage, content):
    return {
        "empty": b"", "cut": content[:100], "cut by a byte": content[:-1], "garbage": b"\x93" * len(content),
        "one bit": content[:200] + bytes([content[200] ^ 4]) + content[201:], "longer": content + b"x",
        "a pickle of numba's own": content[:-compiled.DIGEST],
    }[damage]  # fmt: skip


DAMAGES = ["empty", "cut", "cut by a byte", "garbage", "one bit", "longer", "a pickle of numba's own"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where kernels are kept."""
    compiled._say_once.cache_clear()
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path


def compiled_now(kernel, *values):
    """Whether a call compiles, with the right value."""
    for value in values or (21,):
        assert kernel(value) == value * kernel.py_func(1)
    return bool(kernel.stats.cache_misses)


def files(folder, ending):
    return sorted(folder.rglob(f"*.{ending}"))


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_compiled_anew_and_rewritten(folder, ending, damage):
    assert compiled_now(jit(twice))
    assert not compiled_now(jit(twice))
    (path,) = files(folder, ending)
    path.write_bytes(damaged(damage, path.read_bytes()))
    assert compiled_now(jit(twice))
    assert not compiled_now(jit(twice))
    assert {p.suffix for p in folder.rglob("*") if p.is_file()} == {".nbi", ".nbc"}


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("replaced", ["gone", "a folder"])
def test_a_file_that_is_none(folder, capsys, ending, replaced):
    compiled_now(jit(twice))
    (path,) = files(folder, ending)
    path.unlink()
    if replaced == "a folder":
        path.mkdir()
    assert compiled_now(jit(twice))
    assert compiled_now(jit(twice)) == (replaced == "a folder")
    said = capsys.readouterr().err
    assert ("not kept on disk" in said) == (replaced == "a folder")


def test_code_of_another_kind_is_not_run(folder):
    """Two processes that compile at once may take one name: the second file then lies where the first is looked for."""
    compiled_now(jit(twice), 21, 0.5)
    one, other = files(folder, "nbc")
    one.write_bytes(other.read_bytes())
    kernel = jit(twice)
    assert compiled_now(kernel, 21, 0.5)
    assert sum(kernel.stats.cache_misses.values()) == 1
    assert not compiled_now(jit(twice), 21, 0.5)


def test_code_of_other_sources_or_another_llvm_is_not_run(folder, monkeypatch):
    compiled_now(jit(twice))
    monkeypatch.setattr(compiled.llvmlite, "__version__", "another")
    compiled._sources.cache_clear()
    try:
        assert compiled_now(jit(twice))
    finally:
        monkeypatch.undo()
        compiled._sources.cache_clear()


def test_a_folder_that_vanishes_is_made_again(folder):
    kernel = jit(twice)
    for path in folder.iterdir():
        path.rmdir()
    assert compiled_now(kernel)
    assert not compiled_now(jit(twice))


def test_without_room_a_kernel_runs_and_is_not_kept(folder, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert compiled_now(jit(twice))
    assert compiled_now(jit(thrice))
    said = capsys.readouterr().err
    assert said == "sdn: compiled kernels are not kept on disk (No space left on device)\n"
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_without_a_folder_a_kernel_is_compiled_each_time(monkeypatch):
    monkeypatch.setattr(compiled._Cache._impl_class, "_locator_classes", [])
    kernel = jit(twice)
    assert isinstance(kernel._cache, NullCache)
    assert compiled_now(kernel)
    assert compiled_now(jit(twice))


def test_the_switch_of_numba_is_for_functions_that_python_can_run(folder, monkeypatch, capsys):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setattr(config, "DISABLE_JIT", 1)
    assert isinstance(jit(twice), numba.core.dispatcher.Dispatcher)
    assert numba.njit(twice) is twice
    assert config.DISABLE_JIT == 1


LIF = "import torch, sdn; print(sdn.Neuron(sdn.LIF(decay=.125), 5{})(torch.ones(1, 9, 5))[0].sum().item())"


def run(code, **environment):
    """Output, and what stands on stderr, of a program."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    return done.stdout.strip(), done.stderr


def test_real_kernels_are_compiled_around_the_switch(tmp_path):
    where = {"NUMBA_DISABLE_JIT": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    found, said = run(LIF.format(""), **where)
    assert found == "45.0"
    assert [line.split(" ")[:2] for line in said.splitlines()] == [["sdn:", "compiling"], ["sdn:", "kernels"]]
    assert "1 to 10 s; kept on disk" in said
    assert "solver='loop'" in said
    assert run(LIF.format(""), **where) == ("45.0", "")


def test_the_plain_loop_compiles_nothing(tmp_path):
    found = run(LIF.format(", solver='loop'"), NUMBA_DISABLE_JIT="1", NUMBA_CACHE_DIR=str(tmp_path))
    assert found == ("45.0", "")
    assert not files(tmp_path, "nbc")


def test_three_processes_at_once(folder, tmp_path_factory):
    marks = tmp_path_factory.mktemp("marks")

    def main(name, values):
        (marks / name).touch()
        wait_until(lambda: len(list(marks.iterdir())) == 3)
        for _ in range(12):
            for value in values:
                compiled_now(jit(twice), value)

    children = [Child(lambda n=n, v=v: main(n, v)) for n, v in {"a": (21, 0.5), "b": (0.5, 21), "c": (1j, 21)}.items()]
    assert [child.ended(60) for child in children] == [(0, "")] * 3
    assert not list(folder.rglob("*.partial"))
