"""A full disk, or a limit on the size of files: one line, exit code 2, nothing half written, and a resume that fits.

Files are limited to a size in forked processes, which works everywhere; a small disk of its own needs root on Linux.
"""

import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Child
from scripts import QUICK, files

import sdn
from sdn.runs import folder as runs
from sdn.runs.files import write_json
from sdn.runs.shortage import shortage
from sdn.surrogate.command import main as train_sdn
from spikingssm.commands.train import main as train
from spikingssm.datasets.cache import Pieces, cached
from spikingssm.experiments.ending import ENDED

NETWORK = [
    "experiment=spikingssm/digits", "+tier=smoke", "model.solver=loop", "model.d_model=8", "model.d_state=4",
    "trainer.accelerator=cpu", "trainer.max_epochs=2", "checkpoint.every_n_steps=3", "threads=1",
]  # fmt: skip


def limited(main, size):
    """Exit code and stderr of a script whose files may not grow beyond that many bytes."""

    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        main()

    return Child(run).ended(60)


def assert_one_line(code, err):
    """The error, behind whatever was logged before it."""
    assert code == 2, err
    assert "Traceback" not in err
    assert "ignored" not in err
    errors = [line for line in err.splitlines() if "INFO" not in line]
    assert len(errors) == 1, err
    assert errors[0].startswith("error: ")
    assert "could not be written" in errors[0]


def a_trajectory(path):
    sdn.save_trajectories(path / "x.pt", sdn.generate(sdn.LIF(), 50, 64), sdn.LIF(), mean=0, std=1, seed=0)


def an_artifact(path):
    sdn.save_artifact(path / "x.safetensors", sdn.reduce(sdn.SDN().eval()), sdn.LIF())


def a_cache(path):
    cached("x", {"a": 1}, lambda: {"x": np.zeros(9000)}, folder=path)


def a_cache_in_pieces(path):
    pieces = (np.zeros((100, 9)) for _ in range(20))
    cached("x", {"a": 1}, lambda: {"x": Pieces((2000, 9), float, pieces)}, folder=path)


def a_figure(path):
    from spikingssm.experiments.figures import raster

    raster(torch.eye(50), "x", path / "x.png")


def an_animation(path):
    from spikingssm.reports.animation import compare, explain, save

    save(explain(compare(15.0, 1.0, 0.01, 60), frames=3), path / "x.gif")


def recorded_spikes(path):
    from spikingssm.datasets.heidelberg import Recordings, write_recordings

    one = Recordings(np.arange(5000), np.zeros(5000, int), np.array([0, 5000]), np.zeros(1, int), np.array(["a"]))
    write_recordings(path / "x.h5", one, ["zero"])


def a_published_checkpoint(path):
    from spikingssm import RSNN
    from spikingssm.published.brf import rsnn_to_pt

    rsnn_to_pt(path / "x.pt", RSNN(3, 4, 40, dynamics=sdn.BRF()))


WRITERS = {
    "json": lambda path: write_json(path / "x.json", list(range(3000))),
    "trajectories": a_trajectory,
    "artifact": an_artifact,
    "cache": a_cache,
    "cache in pieces": a_cache_in_pieces,
    "figure": a_figure,
    "HDF5": recorded_spikes,
    "published checkpoint": a_published_checkpoint,
    "animation": an_animation,
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_whatever_is_written_is_whole_or_absent(tmp_path, writer):
    """The same file is written when there is room, so that nothing else was the cause."""
    writer(tmp_path)
    whole = sorted(tmp_path.rglob("*"))
    assert sum(path.stat().st_size for path in whole if path.is_file()) > 1300
    other = tmp_path / "other"
    other.mkdir()
    code, err = limited(lambda: writer(other), 1000)
    assert_one_line(code, err)
    assert not list(other.iterdir())
    writer(other)
    assert len(list(other.rglob("*"))) == len(whole)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, folder):
    """The same trainings with room for all."""
    base = tmp_path_factory.mktemp("whole")
    train([*NETWORK, f"run_dir={base / 'network'}"])
    train_sdn(["--save", str(base / "sdn"), *map(str, files(folder)), *QUICK])
    return base


def equal(one, other):
    """Weights and table of two run folders."""
    for name in ("best", "last"):
        states = [runs.load_checkpoint(path / "checkpoints" / f"{name}.ckpt")["state_dict"] for path in (one, other)]
        assert all(torch.equal(a, states[1][key]) for key, a in states[0].items())
    rows = [[{k: v for k, v in row.items() if "seconds" not in k} for row in runs.read_metrics(p / "metrics.csv")]
            for p in (one, other)]  # fmt: skip
    assert rows[0] == rows[1]


@pytest.mark.parametrize("size", [300, 20_000, 30_000])
def test_a_network_without_room_goes_on_when_there_is(tmp_path, whole, size):
    folder = tmp_path / "run"
    code, err = limited(lambda: train([*NETWORK, f"run_dir={folder}"]), size)
    assert_one_line(code, err)
    assert not list(folder.rglob("*.partial"))
    assert not (folder / "summary.json").exists()
    last = (folder / "checkpoints" / "last.ckpt").exists()
    assert f"go on with resume={folder}" in err if last else "there is no checkpoint yet" in err.lower()
    train([f"resume={folder}"] if last else [*NETWORK, f"run_dir={folder}"])
    equal(folder, whole / "network")
    assert not (folder / ENDED).exists()


@pytest.mark.parametrize("size", [300, 20_000])
def test_an_sdn_without_room_goes_on_when_there_is(tmp_path, folder, whole, size):
    run = tmp_path / "run"
    words = ["--save", str(run), *map(str, files(folder)), *QUICK]
    code, err = limited(lambda: train_sdn(words), size)
    assert_one_line(code, err)
    assert not list(run.rglob("*.partial"))
    train_sdn(["--resume", str(run)] if (run / "checkpoints" / "last.ckpt").exists() else words)
    equal(run, whole / "sdn")


def test_a_log_that_cannot_grow_is_one_line_too(tmp_path):
    """Loguru prints a traceback and goes on."""
    (tmp_path / "run.log").write_bytes(bytes(999))

    def main():
        from loguru import logger

        runs.log_to(tmp_path / "run.log")
        logger.info("more than fits")

    code, err = limited(main, 1000)
    assert_one_line(code, err)
    assert "run.log: could not be written, a file may not become that large here" in err


def test_tensorboards_thread_prints_no_traceback(tmp_path):
    """Its queue is written by a thread, whose errors would be printed beside the one line."""

    def main():
        events = runs.tensorboard(tmp_path)
        for step in range(200):
            events.log_metrics({"train/loss": 1.0}, step)
            events.save()

    code, err = limited(main, 1000)
    assert_one_line(code, err)
    assert f"{tmp_path}/tensorboard" in err


@contextmanager
def small_disk(path, size):
    """A disk of that many bytes in a folder."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("no disk can be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root on Linux to mount a small disk")
@pytest.mark.parametrize("size", [16, 80])
def test_a_small_disk(tmp_path, size):
    with small_disk(tmp_path / "disk", size * 1024) as disk:
        code, err = Child(lambda: train([*NETWORK, f"run_dir={disk / 'run'}"])).ended(60)
        assert_one_line(code, err)
        assert not list(disk.rglob("*.partial"))
        for path in (disk / "run" / "checkpoints").glob("*.ckpt"):
            runs.load_checkpoint(path)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "not enough memory; free some"),
        (np.core._exceptions._ArrayMemoryError((9, 9), np.dtype(float)), "not enough memory (Unable to allocate"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: tried to allocate 4294967296 bytes."), "4 GiB"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory (CUDA out of memory"),
        (RuntimeError("std::bad_alloc"), "not enough memory (std::bad_alloc)"),
        (RuntimeError("can't start new thread"), "not enough memory (can't start new thread)"),
        (OSError(12, "Cannot allocate memory"), "not enough memory"),
        (OSError(28, "No space left", "/a/.x.csv.77.partial"), "/a/x.csv: could not be written, the disk is full"),
        (OSError(122, "Quota", "x"), "x: could not be written, the quota of the disk is used up"),
        (OSError("9 requested and 3 written"), "9 requested and 3 written"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "that reads data is killed"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "that reads data exited unexpectedly"),
    ],
)  # fmt: skip
def test_every_way_of_saying_it_is_known(error, says):
    assert says in shortage(error)


@pytest.mark.parametrize("error", [ValueError("x"), OSError(2, "No such file", "x"), RuntimeError("a bug")])
def test_other_errors_are_not_taken_for_it(error):
    assert shortage(error) is None


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)")])
def test_a_whole_file_is_not_called_damaged_where_memory_is_short(tmp_path, monkeypatch, error):
    """It would be made again for nothing."""
    a_trajectory(tmp_path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)) as caught:
        sdn.load_trajectories(tmp_path / "x.pt")
    assert caught.value is error


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on memory holds on Linux only")
@pytest.mark.parametrize("room", [0, 8, 24])
def test_an_sdn_without_memory_is_one_line(tmp_path, folder, room):
    """Whatever comes first: reading the rows, the batch of a step, the network."""
    training, test = (tmp_path / f"{split}.pt" for split in ("training", "test"))
    for path, seed in ((training, 0), (test, 1)):
        sdn.save_trajectories(path, sdn.generate(sdn.LIF(), 900, 512, seed=seed), sdn.LIF(), mean=0, std=1, seed=seed)

    def run():
        words = ["--training", str(training), "--test", str(test), "--batch_size", "4096", "--epochs", "1"]
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + room * 2**20, resource.RLIM_INFINITY))
        train_sdn(["--save", str(tmp_path / "run"), *words])

    code, err = Child(run).ended(60)
    assert code == 2, err
    assert "Traceback" not in err
    assert "make it again" not in err
    line = [line for line in err.splitlines() if "INFO" not in line]
    assert len(line) == 1, err
    assert "not enough memory" in line[0]


def test_a_network_without_memory_is_one_line(tmp_path):
    code, err = Child(lambda: train([*NETWORK, "model.d_model=10000000", f"run_dir={tmp_path / 'run'}"])).ended(60)
    assert code == 2, err
    assert err.count("\n") == 1
    assert "model: not enough memory" in err
