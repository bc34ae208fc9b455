"""`--neurons FILE.py`: the commands generate, train, reduce and check know a neuron of one's own."""

import sys

import pytest

import sdn
from sdn.__main__ import main
from sdn.surrogate import own_neurons
from sdn.surrogate.trajectory_files import load_trajectories

NEURON = """
from dataclasses import dataclass
from typing import NamedTuple

import torch

import sdn


class HalfLeakState(NamedTuple):
    u: torch.Tensor


@dataclass(frozen=True)
class HalfLeak(sdn.Dynamics):
    keep: float = 0.5
    threshold: float = 1.0
    State = HalfLeakState

    def past(self, state):
        return self.keep * state.u

    def advance(self, state, current, spike):
        return HalfLeakState((self.past(state) + current) * (1 - spike))
"""


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run `sdn WORDS` in an empty folder: its exit code and what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_neurons, "_OWN", {})
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(NEURON)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["sdn", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


def test_a_neuron_of_ones_own_goes_through_all_commands(command, tmp_path):
    own = ["--neurons", "mine.py"]
    many = ["--dynamics", "halfleak", "-T", 128, "-N", 64, "--keep", 0.25]
    for name in ("training", "test"):
        assert command("generate", "data", *own, *many, "-n", name)[0] == 0
    files = sorted((tmp_path / "data").glob("*.pt"))
    found = load_trajectories(files[0])
    assert type(found.dynamics).__name__ == "HalfLeak"
    assert found.dynamics.keep == 0.25
    rate = float(found.spike.float().mean())
    assert 0.02 < rate < 0.6
    words = [
        "--training",
        files[1],
        "--test",
        files[0],
        "--epochs",
        1,
        "--steps_per_epoch",
        3,
        "--batch_size",
        8,
        "--save",
        "exp",
    ]
    code, text = command("train", *own, *words)
    assert code == 0, text
    code, text = command("check", "exp/artifact.safetensors", *own, "--rows", 8, "--length", 64)
    assert (code, "HalfLeak(keep=0.25" in text) == (0, True), text
    code, text = command("reduce", "exp", *own)
    assert (code, "HalfLeak(keep=0.25" in text) == (0, True), text


def test_what_is_no_file_of_neurons_is_refused(command, tmp_path):
    (tmp_path / "none.py").write_text("import sdn\nLIF = sdn.LIF\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    for words, says in (
        (["--neurons"], "--neurons needs a file, such as --neurons mine.py."),
        (["--neurons", "nowhere.py"], "nowhere.py: no such file"),
        (["--neurons=none.py"], "none.py: no sdn.Dynamics is defined in it."),
        (["--neurons", "broken.py"], "running it failed: ZeroDivisionError: division by zero"),
    ):
        code, text = command("check", "lif", *words)
        assert code != 0
        assert says in text
    code, text = command("generate", "data", "--dynamics", "halfleak")
    assert code != 0
    assert "invalid choice: 'halfleak'" in text


def test_an_artifact_of_an_unknown_neuron_says_how_it_gets_known(command, tmp_path, monkeypatch):
    facts = {"name": "NeverDefined", "threshold": 1.0}
    with pytest.raises(ValueError, match=r"no dynamics is named 'NeverDefined'.* with --neurons FILE\.py\."):
        sdn.Dynamics.from_facts(facts)
