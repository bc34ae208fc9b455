"""A training on two machines: it equals itself after a kill, and nobody waits for a process that has ended."""

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scripts import ROOT
from two_nodes import WORDS, compared

from spikingssm.processes import together
from spikingssm.processes.together import Lost, check_launched, meet, needing_others
from spikingssm.training import callbacks
from spikingssm.training.callbacks import Alike

LONG = bool(os.environ.get("SDN_LONG"))
ENV = {
    **os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
}  # fmt: skip
GONE = "another process of this training has ended, or its machine cannot be reached; its own output says why"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What became of each pair of processes; all pairs with SDN_LONG=1."""
    home = tmp_path_factory.mktemp("nodes")
    command = [sys.executable, str(ROOT / "tests" / "two_nodes.py"), str(home), *(["all"] if LONG else [])]
    done = subprocess.run(command, env=ENV, text=True, capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def needs_long(test):
    return pytest.mark.slow(pytest.mark.skipif(not LONG, reason="SDN_LONG=1 runs it")(test))


def test_the_other_process_of_one_that_is_killed_ends_and_says_how_to_go_on(found):
    assert found["whole"]["codes"] == [0, 0]
    killed = found["second killed"]
    assert killed["codes"] == [2, -signal.SIGKILL]
    assert killed["last"][0] == f"error: {GONE}; go on with resume=run, on every machine."
    assert {"checkpoints/last.ckpt", "ended.json", "metrics.csv"} <= set(killed["left"])


def test_a_killed_training_of_two_machines_goes_on_bit_for_bit(found):
    assert found["resumed"]["codes"] == [0, 0], found["resumed"]
    assert found["resumed"]["differs"] is None


@needs_long
def test_the_same_command_goes_on_when_the_first_is_killed(found):
    killed = found["first killed"]
    assert killed["codes"] == [-signal.SIGKILL, 2]
    assert killed["last"][1].startswith(f"error: {GONE}; go on with resume=run")
    assert found["same command"]["codes"] == [0, 0], found["same command"]
    assert found["same command"]["differs"] is None
    assert found["finished"]["codes"] == [0, 0]
    assert "run is finished" in found["finished"]["last"][0]


@needs_long
def test_a_process_that_fails_early_ends_the_other_with_its_reason(found):
    for name, who, why in (("mistake", 1, "unknown key 'nope'"), ("held", 0, "run holds a checkpoint")):
        assert found[name]["codes"] == [2, 2]
        assert found[name]["last"][who].startswith(f"error: {why}")
        other = found[name]["last"][1 - who]
        assert other.startswith(f"error: process {who} on ")
        assert f" has ended: {why}" in other
        assert other.endswith("; mend that, and start all of them again.")
        assert found[name]["seconds"] < 30


@needs_long
def test_processes_with_other_commands_are_refused_by_both(found):
    for name, why in (("seeds", "data.seed 0 and process 1 has 1;"), ("not copied", "and process 1 has 'none';")):
        assert found[name]["codes"] == [2, 2]
        for line in found[name]["last"]:
            assert line.startswith("error: process 0 has ")
            assert why in line


@needs_long
def test_the_second_machine_needs_no_file_of_the_first(found):
    assert found["own disks"]["codes"] == [0, 0]
    assert found["own disks"]["differs"] is None
    assert found["own disks"]["left"] == []


@needs_long
def test_torchrun_on_two_machines(tmp_path):
    """The programs themselves: one training that nobody kills, and one whose second process is killed."""
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert [code for code, _ in _torchrun(tmp_path / "whole", WORDS)] == [0, 0]
    (first, said), (second, _) = _torchrun(tmp_path / "killed", WORDS, kill=True)
    assert first == second == 1  # of torchrun itself
    assert f"error: {GONE}; go on with resume=run, on every machine." in said
    assert "Traceback" not in said.partition("error: ")[0]
    ended = _torchrun(tmp_path / "killed", ["train", "resume=run"])
    assert [code for code, _ in ended] == [0, 0], ended
    assert compared(tmp_path / "killed", tmp_path / "whole") is None


def _torchrun(folder: Path, words: list[str], kill: bool = False) -> list[tuple[int, str]]:
    """Exit code and standard error of both; a free port is that of a socket just closed."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = store.port
    del store
    script = ["tests/two_nodes.py", "--dies", "1", "4"] if kill else ["-m", "spikingssm"]
    script[0] = str(ROOT / script[0]) if kill else script[0]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    launch += ["--master_addr=127.0.0.1", f"--master_port={port}"]
    commands = [[*launch, f"--node_rank={rank}", *script, *words] for rank in range(2)]
    options = {"cwd": folder, "env": ENV, "text": True, "stderr": subprocess.PIPE}
    both = [subprocess.Popen(command, **options) for command in commands]
    try:
        said = [process.communicate(timeout=120)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    return [(process.returncode, text) for process, text in zip(both, said, strict=True)]


@pytest.fixture
def store(monkeypatch):
    """A store as torchrun has one, and this process as the first of two."""
    made = torch.distributed.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20)
    )
    known = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(made.port)}
    for name, value in {**known, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    return made


def test_processes_wait_for_one_another_and_not_for_ever(store):
    with pytest.raises(Lost, match=r"process 1 of 2 did not begin within 0\.3 s; look there"):
        meet(patience=0.3)
    later = threading.Timer(0.3, lambda: store.set("sdn/0/here/1", "other"))
    later.start()
    meet(patience=20)
    later.join()
    assert store.get("sdn/0/here/0")


def test_the_first_that_fails_leaves_its_reason(store, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(FileNotFoundError), needing_others():
        raise FileNotFoundError("no\ndata")
    with pytest.raises(KeyError), needing_others():
        raise KeyError("later")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(Lost, match=r"^process 1 on \S+ has ended: no data; mend that, and start all of them again\.$"):
        meet()
    said = r"^process 1 on \S+ has ended: no data; go on so, on every machine\.$"
    wrapped = ValueError("the run cannot go on from it")
    wrapped.__cause__ = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    with pytest.raises(Lost, match=said), needing_others(lambda: "go on so"):
        raise wrapped


def test_without_others_errors_stay_as_they_are(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(together, "_store", lambda: pytest.fail("there is none"))
    with pytest.raises(RuntimeError, match="gloo"), needing_others():
        raise RuntimeError("gloo")


def test_where_the_first_torchrun_has_ended_the_error_is_still_one_line(store, monkeypatch):
    def gone(*_: object) -> None:
        raise torch.distributed.DistNetworkError("Failed to recv, got 0 bytes")

    monkeypatch.setattr(together, "_connected", gone)
    with pytest.raises(ValueError, match="mine"), needing_others():
        raise ValueError("mine")
    with pytest.raises(Lost, match=f"^{GONE}; start all of them again, on every machine"), needing_others():
        meet()


def test_what_differs_between_processes_is_named(monkeypatch):
    loop = SimpleNamespace(world_size=3)
    monkeypatch.setattr(callbacks, "gathered", lambda mine: [mine, mine, {"a": 1, "b": 2}])
    with pytest.raises(ValueError, match=r"process 0 has b 1 and process 2 has 2; start all of them with the same com"):
        Alike({"a": 1, "b": 1}).setup(loop, None, "fit")
    Alike({"a": 1, "b": 2}).setup(loop, None, "fit")
    Alike({"a": 1}).setup(SimpleNamespace(world_size=1), None, "fit")


def test_a_training_that_was_started_otherwise_than_it_was_told_is_refused(monkeypatch):
    for name in (*together.LAUNCHED, "TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"trainer\.num_nodes=2 needs the command on each of 2 machines"):
        check_launched(1, 2)
    check_launched(2, 1)
    check_launched("auto", 2)
    for name, value in {"MASTER_ADDR": "x", "WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    check_launched(2, 2)
    check_launched(-1, 2)
    with pytest.raises(ValueError, match=r"started 4 processes, and trainer\.devices=1 on trainer\.num_nodes=2 are 2"):
        check_launched(1, 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    check_launched(2, 2)
    with pytest.raises(
        ValueError, match=r"2 processes on this machine, and trainer\.devices is 1; set trainer\.devices=2"
    ):
        check_launched(1, 4)  # whose product is right
