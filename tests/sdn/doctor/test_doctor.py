"""`sdn doctor` says what is there and what is wrong, `sdn warmup` compiles what it says."""

import io
import json
import sys

import pytest
import torch
from helpers import assert_lively

from sdn import __main__ as program
from sdn.doctor import gpu, machine, report
from sdn.doctor.operators import operators
from sdn.doctor.speed import speed


def command(monkeypatch, *words):
    """Exit code of `sdn ...` in this process."""
    monkeypatch.setattr(sys, "argv", ["sdn", *map(str, words)])
    try:
        program.main()
    except SystemExit as stop:
        return stop.code
    return 0


def test_the_report_is_text_and_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "packages", lambda: ({"torch": "2.0"}, ["torch is old; install another."]))
    assert command(monkeypatch, "doctor", "--seconds", 0, "--json", tmp_path / "d.json") == 1
    found = json.loads((tmp_path / "d.json").read_text())
    assert set(found) == {"packages", "machine", "caches", "paths", "gpu", "problems"}
    assert found["problems"][0] == "torch is old; install another."
    assert found["paths"]["fused"] == "runs, 100.00% of the spikes are the loop's"
    out = capsys.readouterr().out
    assert "torch is old" in out.split("problems\n")[1]
    assert f"threads                  {torch.get_num_threads()}" in out


def test_a_machine_without_faults_ends_with_0(monkeypatch, capsys):
    for part in ("packages", "machine", "caches", "active_paths"):
        monkeypatch.setattr(report, part, lambda: ({"a": 1}, []))
    assert command(monkeypatch, "doctor", "--seconds", 0) == 0
    assert capsys.readouterr().out.endswith("problems\n  none\n")
    assert command(monkeypatch, "doctor", "--seconds", 0, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []


def test_a_path_that_the_output_cannot_hold_is_written_with_escapes(monkeypatch):
    for part in ("packages", "machine", "caches", "active_paths"):
        monkeypatch.setattr(report, part, lambda: ({"a": "/tmp/\u00fcber"}, []))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", write_through=True))
    assert command(monkeypatch, "doctor", "--seconds", 0) == 0
    assert b"/tmp/\\xfcber" in written.getvalue()


def test_a_stranger_that_does_not_import_is_named(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    problems = machine.packages()[1]
    assert any("nms does not exist" in line and "pip uninstall torchvision" in line for line in problems)


def test_a_plain_install_is_no_fault(monkeypatch):
    version = machine._version
    monkeypatch.setattr(machine, "_version", lambda name: None if name == "lightning" else version(name))
    found, problems = machine.packages()
    assert found["training"] == "needs lightning: pip install 'sdn-spikingssm[train,data]'"
    assert not problems


def test_threads_folders_and_wrong_spikes_are_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SDN_CACHE_DIR", str(tmp_path / "file" / "below"))
    found, problems = machine.caches()
    assert not found[0]["writable"]
    assert str(tmp_path / "file" / "below") in problems[0]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    assert "OMP_NUM_THREADS=" in machine.machine()[1][0]
    exact = machine.simulate
    monkeypatch.setattr(machine, "simulate", lambda *a: exact(*a)._replace(spike=1 - exact(*a).spike))
    assert len(machine.active_paths()[1]) == 3


def test_the_speed_is_that_of_the_neuron():
    found, _ = speed(seconds=0.01)
    times = found["ns_per_neuron_and_step"]
    assert set(times) == {"fused", "relu", "loop"}
    assert 0 < times["relu"] < times["loop"]
    assert found["loop_over_fused"] == pytest.approx(times["loop"] / times["fused"], rel=0.02)


@pytest.mark.parametrize("name", operators())
def test_operators_give_what_they_say(name):
    found = operators()[name]("cpu", torch.float32, 65, 33)
    assert all(torch.isfinite(torch.view_as_real(v) if v.is_complex() else v).all() for v in found.values())
    for key, value in found.items():
        if "spikes" in key:
            assert_lively(value)
        if "gradient" in key:
            assert value.abs().max() > 0, key


def test_what_differs_on_a_device_is_reported():
    """A stand-in for a device that rounds wrongly, and one that is not the same twice."""
    lif, turns = operators()["lif"], iter(range(100))

    def wrong(device, dtype, length, channels):
        found = lif("cpu", dtype, length, channels)
        found["spikes"] = found["spikes"].clone()
        found["spikes"][0, 0, 0] += device == "there"
        return found

    def unsteady(device, dtype, length, channels):
        found = lif("cpu", dtype, length, channels)
        found["gradient of current"] = found["gradient of current"] + 1e-12 * next(turns)
        return found

    def rough(device, dtype, length, channels):
        found = lif("cpu", dtype, length, channels)
        found["gradient of current"] = found["gradient of current"] * (1.01 if device == "there" else 1.0)
        return found

    assert gpu._compared(lif, "cpu", torch.float32, 65, 33) == (0.0, [])
    assert gpu._compared(wrong, "there", torch.float32, 65, 33)[1] == ["99.9845% of the spikes are those of the CPU"]
    assert "differ from one run to the next" in gpu._compared(unsteady, "there", torch.float64, 65, 33)[1][0]
    assert "differs from that of the CPU by 1.0e-02" in gpu._compared(rough, "there", torch.float32, 65, 33)[1][0]


def test_the_checks_of_a_gpu_run_on_a_cpu(monkeypatch):
    monkeypatch.setattr(gpu, "SHAPES", [(3, 2)])
    monkeypatch.setattr(gpu, "operators", lambda: {"lif": operators()["lif"]})
    monkeypatch.setattr(gpu, "PLACED", ("lif",))
    monkeypatch.setattr(gpu, "_under_compile", lambda device: "equal")  # minutes on a CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = report.examine(seconds=0, gpu=True, device="cpu")
    assert set(found["gpu"]) == set(gpu.CHECKS)
    assert found["gpu"]["placement"]["autocast"] == "equal"
    assert found["gpu"]["placement"]["side stream, lif"] == "equal"
    assert found["gpu"]["placement"]["captured graph, recurrent"] == "not on this device"
    assert found["gpu"]["times"]["milliseconds"].keys() == {"copy", "relu", "fused", "parallel", "loop"}
    assert not [line for line in found["problems"] if line.startswith("GPU")]


def test_the_models_are_those_of_the_other_package():
    from importlib.metadata import entry_points

    assert [point.value for point in entry_points(group="sdn.doctor")] == ["spikingssm.measures.first_step:steps"]


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command(monkeypatch, "doctor", "--gpu") == 2
    assert "error: --gpu needs a CUDA device; torch" in capsys.readouterr().err


def test_warming_up_runs_what_is_named(monkeypatch, capsys):
    assert command(monkeypatch, "warmup", "scan", "lif") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("5 operators, up to about 15 s")
    assert [line.split("s  ")[1] for line in lines[1:-1]] == [
        "lif", "lif, parallel", "lif, surrogate", "scan, real", "scan, complex",
    ]  # fmt: skip
    assert command(monkeypatch, "warmup", "lif", "leaky") == 2
    assert "no operator is named 'leaky'; there are: alif; brf" in capsys.readouterr().err
