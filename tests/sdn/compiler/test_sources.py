"""Generated files: readable, whole under several processes, in a home that cannot be written to, and never believed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from own_neurons import AdEx

import sdn
from sdn.compiler import sources

CODE = """
import torch, sdn
neuron = sdn.Neuron(sdn.LIF({decay}), 3, learn={{"threshold": None}})
x = torch.ones(1, 9, 3, requires_grad=True)
spikes, _ = neuron(x)
spikes.sum().backward()
print(int(spikes.sum()), neuron.learned["threshold"].grad.any().item())
"""


def started(folder, **more):
    environment = {**os.environ, "SDN_CACHE_DIR": str(folder), **more}
    command = [sys.executable, "-c", CODE.format(decay=0.4)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once(tmp_path):
    both = [started(tmp_path / "cache") for _ in range(2)]
    outcomes = [process.communicate() for process in both]
    assert [out for out, _ in outcomes] == ["27 True\n"] * 2, outcomes
    names = {path.name.rsplit("-", 1)[0] for path in (tmp_path / "cache").glob("*.py")}
    assert names == {"lif-parameters", "lif-forward", "lif-backward"}
    assert not [*(tmp_path / "cache").glob(".*partial")]


@pytest.mark.parametrize("place", ["/proc/nowhere", "file"])
def test_a_place_that_cannot_be_written_to(tmp_path, place):
    (tmp_path / "file").write_text("")
    process = started(place if place[0] == "/" else tmp_path / "file" / "cache")
    out, err = process.communicate()
    assert out == "27 True\n", err
    assert "no folder to keep it in" in err


def test_what_a_file_holds_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setenv("SDN_CACHE_DIR", str(tmp_path))
    text = '"""A text."""\nanswer = 41\n'
    path = tmp_path / f"thing-{sources.digest_of(text)}.py"
    for content in ("answer = 42\n", "", "def ("):
        path.write_text(content)
        sources.module_of.cache_clear()
        module = sources.module_of("thing", text)
        assert module.answer == 41
        assert path.read_text() == text == module.__source__
    sources.module_of.cache_clear()


def test_the_source_of_a_neuron_can_be_read():
    neuron = sdn.Neuron(sdn.ALIF(), 3, spike=sdn.ArcTan())
    text = sdn.source(neuron)
    for part in (
        "def parameters(tau_m, tau_a, beta, threshold):",
        "def step(",
        "def pull(",
        "def slope(",
        "float32 as F",
    ):
        assert part in text
    assert "float64 as F" in sdn.source(sdn.ALIF(), torch.float64)
    assert text != sdn.source(sdn.Neuron(sdn.ALIF(), 3, spike=sdn.ArcTan(), solver=sdn.Fused(detach_reset=False)))
    with pytest.raises(ValueError, match="must be a Neuron or a dynamics such as LIF"):
        sdn.source("lif")
    assert "equal those of sdn.simulate bit for bit" in text
    assert "up to the rounding of exp" in sdn.source(AdEx())
    longest = max(len(line) for line in text.splitlines())
    assert longest < 160


def test_a_traceback_shows_the_generated_line():
    from sdn.compiler.programs import PARAMETERS, program_of

    function = PARAMETERS[program_of(sdn.ALIF()).key]
    with pytest.raises(TypeError) as raised:
        function("a", 1.0, 1.0, 1.0)
    assert Path(raised.traceback[-1].path).name.startswith("alif-parameters-")
